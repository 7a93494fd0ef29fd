"""A prefix for attentions of their own kind, against formulas written out here."""

import pytest
import torch
from peft import get_peft_model
from torch.nn import functional as F

from peft_autoconfig import LayerPrefixConfig

from .architectures import DEBERTA, build, text_batch
from .prefixed import assert_near, output_of, real, run, sites_of, states_of, with_prefix


def relative_positions(size, buckets):
    # DeBERTa-v2 puts the distances beyond half of its buckets into logarithmic ones.
    distance = torch.arange(size)[:, None] - torch.arange(size)[None, :]
    if not buckets:
        return distance
    middle, most = buckets // 2, DEBERTA["max_relative_positions"]
    size = distance.abs().double()
    far = (size / middle).log() / torch.tensor((most - 1) / middle).double().log() * (middle - 1)
    far = far.ceil() + middle
    return torch.where(size <= middle, distance.double(), far * distance.sign()).long()


def deberta_reference(attention, x, mask, embeddings, prefix, *, is_first):
    """Disentangled attention with a prefix that has no relative position, one score at a time."""
    heads, size = attention.num_attention_heads, attention.attention_head_size
    span = 6 if is_first else 4
    split = lambda t: t.unflatten(-1, (heads, size)).transpose(-2, -3)  # noqa: E731
    if is_first:
        states = attention.in_proj(x).unflatten(-1, (heads, 3 * size)).transpose(1, 2)
        query, key, value = states.chunk(3, -1)
        query = query + split(attention.q_bias[None])
        value = value + split(attention.v_bias[None])
        pos_key = split(attention.pos_proj(embeddings))
        pos_query = split(attention.pos_q_proj(embeddings))
    else:
        query, key, value = (
            split(p(x)) for p in (attention.query_proj, attention.key_proj, attention.value_proj)
        )
        pos_key = split(attention.key_proj(embeddings))
        pos_query = split(attention.query_proj(embeddings))
    distance = relative_positions(x.shape[1], 0 if is_first else 4)
    at, back = (d.clamp(-span, span - 1) + span for d in (distance, -distance.T))
    scores = torch.einsum("bhid,bhjd->bhij", query, key)
    scores = scores + torch.einsum("bhid,hijd->bhij", query, pos_key[:, at])
    scores = scores + torch.einsum("bhjd,hijd->bhij", key, pos_query[:, back])
    before = torch.einsum("bhid,hpd->bhip", query, prefix[0])
    scores = torch.cat([before, scores.masked_fill(~mask, -torch.inf)], -1) / (3 * size) ** 0.5
    values = torch.cat([prefix[1].expand(len(value), -1, -1, -1), value], 2)
    return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("name", ["DeBERTa", "DeBERTa-v2/v3"])
def test_disentangled_attention_is_that_of_the_formula(name):
    model = get_peft_model(
        build(name).double(), LayerPrefixConfig(prefix_length=3), autocast_adapter_dtype=False
    )
    model.eval()
    site, seen = sites_of(model)[0], {}
    site.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs, x=args[0], mask=args[1]), with_kwargs=True
    )
    site.register_forward_hook(lambda _, args, output: seen.update(output=output[0]))
    batch = text_batch()
    output_of(model, batch)
    states = states_of(site)
    expected = deberta_reference(
        site.base_layer,
        seen["x"],
        seen["mask"].bool(),
        seen["rel_embeddings"],
        states,
        is_first=name == "DeBERTa",
    )
    output, expected = real(seen["output"], batch), real(expected, batch)
    # transformers holds the scale of the scores in single precision
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-7)
    gradients = [
        torch.autograd.grad(y.pow(3).sum(), states, retain_graph=True) for y in (output, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_talking_heads_mix_the_prefix_as_well():
    batch = text_batch()
    plain = with_prefix("DeBERTa")
    talking = with_prefix("DeBERTa", talking_head=True)
    for site, other in zip(sites_of(talking), sites_of(plain), strict=True):
        site.load_state_dict(other.state_dict(), strict=False)
        for projection in (site.base_layer.head_logits_proj, site.base_layer.head_weights_proj):
            torch.nn.init.eye_(projection.weight)
    talking.load_state_dict(plain.state_dict(), strict=False)
    assert_near(real(run(talking, batch), batch), real(run(plain, batch), batch))
    swapped = torch.eye(4)[[1, 0, 2, 3]]
    for site in sites_of(talking):
        site.base_layer.head_weights_proj.weight.data = swapped
    assert (run(talking, batch) - run(plain, batch)).abs().max() > 1e-3


FALCON_WITH_BIASES = {
    "new_decoder_architecture": False,
    "multi_query": False,
    "num_kv_heads": 4,
    "alibi": True,
}


@pytest.mark.parametrize(("name", "changes"), [("Bloom", {}), ("Falcon", FALCON_WITH_BIASES)])
def test_biases_by_position_treat_the_prefix_as_standing_at_the_first_token(name, changes):
    model = with_prefix(name, **changes)
    site, seen = sites_of(model)[0], {}
    site.register_forward_hook(lambda _, args, output: seen.update(args=args, output=output[0]))
    ids = text_batch()["input_ids"][:1]
    run(model, {"input_ids": ids})
    attention, length = site.base_layer, ids.shape[1]
    states = attention.query_key_value(seen["args"][0]).unflatten(-1, (4, 3, 8))
    query, key, value = states.permute(3, 0, 2, 1, 4)
    p_key, p_value = states_of(site)
    slopes = torch.tensor([2.0 ** -(2 * (i + 1)) for i in range(4)])[:, None, None]
    # Falcon scales its biases with the scores
    biases = slopes * torch.arange(length) * (8**-0.5 if name == "Falcon" else 1)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    logits = (query @ key.transpose(-1, -2) * 8**-0.5 + biases).masked_fill(later, -torch.inf)
    weights = torch.cat([query @ p_key.transpose(-1, -2) * 8**-0.5, logits], -1).softmax(-1)
    context = (weights @ torch.cat([p_value[None], value], 2)).transpose(1, 2).flatten(2)
    residual = seen["args"][1] if name == "Bloom" else 0
    assert_near(seen["output"], (residual + attention.dense(context)).detach())


def test_a_falcon_without_a_mask_sees_no_later_token():
    site, x = sites_of(with_prefix("Falcon"))[0], torch.randn(2, 5, 32)

    class StaticCache:
        def update(self, key, value, *_):
            return F.pad(key, (0, 0, 0, 4)), F.pad(value, (0, 0, 0, 4))

    rotation = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    fixed = {"alibi": None, "position_embeddings": rotation}
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    expected = site(x, **fixed, attention_mask=mask, layer_past=None)[0]
    for cache in (None, StaticCache()):
        output = site(x, **fixed, attention_mask=None, layer_past=cache)[0]
        torch.testing.assert_close(output, expected)
