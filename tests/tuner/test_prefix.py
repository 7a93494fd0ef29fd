"""The prefix of an attention, against formulas written out here and against itself."""

import pytest
import torch
from peft import get_peft_model
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import eager_mask

from peft_autoconfig import AutoPEFTConfig, LayerPrefixConfig
from peft_autoconfig.errors import PlacementError
from peft_autoconfig.tuner.attention import PrefixedConfig, check_prefix
from peft_autoconfig.tuner.placement import find_layers
from peft_autoconfig.tuner.prefix import AttentionSite
from peft_autoconfig.tuner.prefix_states import PrefixStates

from .architectures import ARCHITECTURES, DEBERTA, build, text_batch

LANGUAGE_MODELS = [
    *("GPT-2", "GPT-NeoX", "OPT", "GPT-J", "Bloom", "Falcon", "Llama", "Mistral", "Qwen3"),
    *("Gemma 2", "Gemma 3", "Phi-3", "Mixtral", "Qwen3-MoE"),
]
TEXT_TO_TEXT = ["T5", "BART", "Whisper"]
# Gemma 2 caps its logits, which transformers' sdpa function does not
IMPLEMENTATIONS = [
    (name, implementation)
    for name in ARCHITECTURES
    for implementation in ("eager", "sdpa")
    if implementation == "eager" or name not in ("Gemma 2", "DeBERTa", "DeBERTa-v2/v3", "Bloom")
]
ON_INTERFACE = [case for case in IMPLEMENTATIONS if not ARCHITECTURES[case[0]].off_interface]
REFERENCE = "test_reference"


def with_prefix(name, length=3, **changes):
    model = get_peft_model(build(name, **changes), AutoPEFTConfig(prefix_length=length))
    return model.eval()


def output_of(model, batch):
    outputs = model(**batch)
    return next(v for v in outputs.values() if torch.is_tensor(v) and v.is_floating_point())


def run(model, batch):
    with torch.no_grad():
        return output_of(model, batch)


def sites_of(model):
    return [module for module in model.modules() if isinstance(module, AttentionSite)]


def states_of(site, adapter="default"):
    return site.autopeft_prefix_key[adapter], site.autopeft_prefix_value[adapter]


def without_padding(batch):
    return {k: torch.ones_like(v) if k == "attention_mask" else v for k, v in batch.items()}


def real(output, batch):
    """Returns what belongs to tokens that are no padding."""
    mask = batch.get("attention_mask")
    return output if mask is None or output.shape[:2] != mask.shape else output[mask.bool()]


def assert_near(output, expected, atol=1e-5):
    torch.testing.assert_close(output, expected, rtol=0, atol=atol * max(1, expected.abs().max()))


# The formula: an attention function of this file's own, in double precision.


def reference_attention(module, query, key, value, mask, scaling=None, softcap=None, **kwargs):
    dtype, repeats = query.dtype, query.shape[1] // key.shape[1]
    before = getattr(module, "reference_prefix", None)
    scaling = module.head_dim**-0.5 if scaling is None else scaling
    query, key, value = query.double(), key.double(), value.double()
    logits = query @ key.repeat_interleave(repeats, 1).transpose(-1, -2) * scaling
    if kwargs.get("position_bias") is not None:
        logits = logits + kwargs["position_bias"].double()
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask < -1e30
        logits = logits.masked_fill(hidden[..., : key.shape[2]], float("-inf"))
    values = value.repeat_interleave(repeats, 1)
    if before is not None:
        p_key, p_value = (p.double().repeat_interleave(repeats, 0) for p in before)
        logits = torch.cat([query @ p_key.transpose(-1, -2) * scaling, logits], -1)
        values = torch.cat([p_value.expand(len(values), -1, -1, -1), values], 2)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    output = logits.softmax(-1) @ values
    return output.transpose(1, 2).to(dtype).contiguous(), None


AttentionInterface.register(REFERENCE, reference_attention)
AttentionMaskInterface.register(REFERENCE, eager_mask)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("name", "implementation"), ON_INTERFACE)
def test_output_is_that_of_the_formula(name, implementation, padded):
    batch = ARCHITECTURES[name].batch()
    batch = batch if padded else without_padding(batch)
    model = with_prefix(name, attn_implementation=implementation)
    result = run(model, batch)
    prefixes = [tuple(p.detach() for p in states_of(site)) for site in sites_of(model)]
    base = model.unload()
    base.set_attn_implementation(REFERENCE)
    for places, prefix in zip(find_layers(base), prefixes, strict=True):
        base.get_submodule(places.attention).reference_prefix = prefix
    assert_near(real(result, batch), real(run(base, batch), batch))


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


def causal_cases():
    for name in LANGUAGE_MODELS:
        # with a window a cached prefix slides out of it, ours stays; Bloom's biases are by position
        changes = {} if name not in ("Mistral", "Gemma 2", "Gemma 3") else {"sliding_window": None}
        if name.startswith("Gemma"):
            changes = {"sliding_window": 64}
        if name != "Bloom":
            yield pytest.param(name, changes, id=name)
    changes = {"new_decoder_architecture": False, "multi_query": True}
    yield pytest.param("Falcon", changes, id="Falcon-MQA")


@pytest.mark.parametrize(("name", "changes"), list(causal_cases()))
def test_output_is_that_of_keys_and_values_that_were_cached_first(name, changes):
    model = with_prefix(name, **changes)
    ids = text_batch()["input_ids"][:1]
    sites = sites_of(model)
    positions = torch.arange(ids.shape[1])[None]
    result = run(model, {"input_ids": ids, "position_ids": positions, "use_cache": False})
    states = [states_of(site) for site in sites]
    base, cache = model.unload(), DynamicCache()
    for i, (key, value) in enumerate(states):
        # Falcon caches the keys of a group once for each of its queries
        repeats = 2 if name == "Falcon" and not changes else 1
        cache.update(*(s.repeat_interleave(repeats, 0)[None] for s in (key, value)), i)
    mask = torch.ones(1, 3 + ids.shape[1], dtype=torch.long)
    expected = run(
        base,
        {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
        },
    )
    assert_near(result, expected)


@pytest.mark.parametrize(("name", "implementation"), IMPLEMENTATIONS)
def test_a_prefix_of_no_length_changes_nothing(name, implementation, monkeypatch):
    batch = ARCHITECTURES[name].batch()
    model = with_prefix(name, attn_implementation=implementation)
    none = [s.detach()[None, :, :0] for s in states_of(sites_of(model)[0])]

    def nothing(site, num_rows):
        return PrefixStates(
            *(s.new_zeros(1, site.sizes.num_heads, 0, site.sizes.head_dim) for s in none)
        )

    monkeypatch.setattr(AttentionSite, "_at_work", nothing)
    result = run(model, batch)
    assert_near(real(result, batch), real(run(model.unload(), batch), batch), atol=1e-6)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "name", [n for n, implementation in IMPLEMENTATIONS if implementation == "sdpa"]
)
def test_eager_and_sdpa_agree(name, padded):
    batch = ARCHITECTURES[name].batch()
    batch = batch if padded else {k: v for k, v in batch.items() if k != "attention_mask"}
    eager, sdpa = (run(with_prefix(name, attn_implementation=i), batch) for i in ("eager", "sdpa"))
    assert_near(real(eager, batch), real(sdpa, batch))


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    "name", ["BERT", *(n for n, a in ARCHITECTURES.items() if a.off_interface)]
)
def test_half_precision_stays_near(name, autocast):
    batch = text_batch()
    expected = run(with_prefix(name), batch)
    model = with_prefix(name) if autocast else with_prefix(name).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = output_of(model, batch)
    output.float().pow(2).sum().backward()
    difference = (real(output.float(), batch) - real(expected, batch)).abs().mean()
    assert difference < 0.03 * expected.std()
    for key, value in map(states_of, sites_of(model)):
        assert key.grad.isfinite().all()
        assert value.grad.isfinite().all()


# Generation


def generate(model, batch, **options):
    return model.generate(
        **batch,
        **{
            "max_new_tokens": 4,
            "min_new_tokens": 4,
            "do_sample": False,
            "pad_token_id": 1,
            "output_logits": True,
            "return_dict_in_generate": True,
            **options,
        },
    )


def prompt(name):
    batch = ARCHITECTURES[name].batch()
    batch.pop("decoder_input_ids", None)
    if name in LANGUAGE_MODELS:
        batch = {k: v[:, :4] for k, v in batch.items()}
    return batch


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_generation_needs_no_cache(name):
    model = with_prefix(name)
    cached = generate(model, prompt(name))
    uncached = generate(model, prompt(name), use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    assert_near(torch.stack(cached.logits), torch.stack(uncached.logits))


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_a_static_cache_changes_nothing(name):
    model = with_prefix(name)
    expected = generate(model, prompt(name))
    static = generate(model, prompt(name), cache_implementation="static", disable_compile=True)
    assert_near(torch.stack(static.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_padding_on_the_left_changes_nothing(name):
    model = with_prefix(name)
    batch = prompt(name)
    padded = {
        "input_ids": F.pad(batch["input_ids"], (3, 0), value=1),
        "attention_mask": F.pad(batch["attention_mask"], (3, 0), value=0),
    }
    expected, result = generate(model, batch), generate(model, padded)
    assert_near(torch.stack(result.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, *TEXT_TO_TEXT])
def test_beams_need_no_cache(name):
    model = with_prefix(name)
    results = [generate(model, prompt(name), num_beams=3, use_cache=c) for c in (True, False)]
    assert torch.equal(results[0].sequences, results[1].sequences)


# Several adapters

MIXED = ["BERT", "ModernBERT", "DeBERTa", "DeBERTa-v2/v3", "Llama", "Mistral", "Bloom", "Falcon"]
MIXED += ["T5", "BART", "ViT"]


def with_two_prefixes(name, **changes):
    model = with_prefix(name, length=2, **changes)
    model.add_adapter("longer", AutoPEFTConfig(prefix_length=4, prefix_projection_size=3))
    model.add_adapter("none", AutoPEFTConfig(serial_bottleneck_size=2))
    return model.eval()


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("name", "implementation"), [case for case in IMPLEMENTATIONS if case[0] in MIXED]
)
def test_rows_of_a_mixed_batch_are_those_of_their_adapter(name, implementation, padded):
    model = with_two_prefixes(name, attn_implementation=implementation)
    batch = ARCHITECTURES[name].batch()
    if not padded:
        batch.pop("attention_mask", None)
    for adapters in (["longer", "__base__", "default"], ["none", "default", "default"]):
        mixed = run(model, {**batch, "adapter_names": adapters})
        for row, adapter in enumerate(adapters):
            if adapter == "__base__":
                with model.disable_adapter():
                    alone = run(model, batch)
            else:
                model.set_adapter(adapter)
                alone = run(model, batch)
            assert_near(mixed[row], alone[row])


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Falcon", "T5"])
def test_beams_of_a_mixed_batch_are_those_of_their_adapter(name):
    model = with_two_prefixes(name)
    adapters = ["default", "longer", "__base__"]
    mixed = generate(model, prompt(name), num_beams=2, adapter_names=adapters).sequences
    for row, adapter in enumerate(adapters[:2]):
        model.set_adapter(adapter)
        assert torch.equal(mixed[row], generate(model, prompt(name), num_beams=2).sequences[row])


def test_two_active_prefixes_stand_one_after_the_other():
    model, batch = with_two_prefixes("Llama"), text_batch()
    model.base_model.set_adapter(["default", "longer"])
    both = run(model, batch)
    joined = with_prefix("Llama", length=6)
    for one, two in zip(sites_of(joined), sites_of(model), strict=True):
        parts = zip(two._states("default"), two._states("longer"), strict=True)
        for own, part in zip(states_of(one), parts, strict=True):
            own.data = torch.cat(part, dim=1)
    assert_near(real(both, batch), real(run(joined, batch), batch))


# The projection


def test_projection_is_that_of_the_formula_and_can_be_folded_away():
    config = AutoPEFTConfig(prefix_length=3, prefix_projection_size=5)
    model, batch = get_peft_model(build("Qwen3"), config).eval(), text_batch()
    site, num_heads, head_dim = sites_of(model)[1], 2, 16
    embedding = site.autopeft_prefix_embedding["default"]
    down = site.autopeft_prefix_projection_down["default"]
    up = site.autopeft_prefix_projection_up["default"]
    assert embedding.shape == (3, 32)
    assert (down.in_features, down.out_features, up.out_features) == (32, 5, 2 * 2 * 16)
    states = torch.tanh(embedding @ down.weight.T + down.bias) @ up.weight.T + up.bias
    states = states.reshape(3, 2, num_heads, head_dim)
    before = run(model, batch)
    for found in sites_of(model):
        found.fold("default")
    for i, part in enumerate(states_of(site)):
        torch.testing.assert_close(part, states[:, i].transpose(0, 1))
        assert part.requires_grad
    assert torch.equal(run(model, batch), before)
    names = [name for name, _ in model.named_parameters() if "autopeft_" in name]
    assert len(names) == 2 * 2
    assert all("prefix_key" in name or "prefix_value" in name for name in names)


def test_projection_is_computed_once_for_the_whole_batch():
    config = AutoPEFTConfig(prefix_length=3, prefix_projection_size=5)
    model, calls = get_peft_model(build("BERT"), config), []
    up = sites_of(model)[0].autopeft_prefix_projection_up["default"]
    up.register_forward_hook(lambda _, args, output: calls.append(args[0].shape))
    output_of(model, text_batch()).sum().backward()
    assert calls == [(3, 5)]
    for name, parameter in model.named_parameters():
        if "autopeft_" in name:
            assert parameter.grad.abs().sum() > 0, name


# Where there is no prefix


def test_the_config_is_seen_through_a_view_only_where_there_is_a_prefix():
    model = build("Llama")
    config = AutoPEFTConfig(prefix_length=[2, 0], lora_rank=2, lora_modules="attention")
    peft_model = get_peft_model(model, config)
    views = [isinstance(s.base_layer.config, PrefixedConfig) for s in sites_of(peft_model)]
    assert views == [True, False]
    base = peft_model.unload()
    assert all(layer.self_attn.config is base.config for layer in base.model.layers)


class CountingAttention(torch.nn.Module):
    """An attention that goes its own way."""

    def __init__(self):
        super().__init__()
        self.query = torch.nn.Linear(32, 32)

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        return (self.query(hidden_states), None)


def test_an_attention_of_its_own_kind_is_refused_and_the_model_left_untouched():
    model = build("Llama")
    for layer in model.model.layers:
        layer.self_attn = CountingAttention()
    names = list(model.state_dict())
    with pytest.raises(PlacementError, match="which CountingAttention does not"):
        get_peft_model(model, AutoPEFTConfig(prefix_length=1, serial_bottleneck_size=1))
    assert list(model.state_dict()) == names
    get_peft_model(model, AutoPEFTConfig(serial_bottleneck_size=1))


@pytest.mark.parametrize("name", ["BERT", "Falcon"])
@pytest.mark.parametrize("implementation", ["flex_attention", "flash_attention_2"])
def test_other_implementations_are_refused(name, implementation):
    model = build(name)
    attention = model.get_submodule(find_layers(model)[0].attention)
    check_prefix(attention)
    model.config._attn_implementation = implementation
    with pytest.raises(PlacementError, match=f"got '{implementation}'"):
        check_prefix(attention)


def test_an_implementation_set_after_the_injection_is_followed_or_refused():
    model, batch = with_prefix("Llama", attn_implementation="sdpa"), text_batch()
    expected = run(model, batch)
    model.base_model.model.set_attn_implementation("eager")
    assert_near(real(run(model, batch), batch), real(expected, batch))
    model.base_model.model.config._attn_implementation = "flex_attention"
    attention = sites_of(model)[0]
    with pytest.raises(PlacementError, match="got 'flex_attention'"):
        attention(torch.zeros(1, 2, 32), position_embeddings=(torch.zeros(1, 2, 8),) * 2)
