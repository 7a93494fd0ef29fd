"""The prefix of an attention, against formulas written out here and against itself."""

import pytest
import torch
from peft import get_peft_model
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import PlacementError
from peft_autoconfig.tuner.attention import PrefixedConfig, check_prefix
from peft_autoconfig.tuner.placement import find_layers
from peft_autoconfig.tuner.prefix import AttentionSite
from peft_autoconfig.tuner.prefix_states import PrefixStates

from .architectures import ARCHITECTURES, build, text_batch
from .prefixed import (
    IMPLEMENTATIONS,
    ON_INTERFACE,
    assert_near,
    output_of,
    real,
    run,
    sites_of,
    states_of,
    with_prefix,
    with_two_prefixes,
    without_padding,
)

REFERENCE = "test_reference"

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


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["Llama", "DeBERTa", "DeBERTa-v2/v3", "Bloom", "Falcon", "T5"])
def test_gradient_checkpointing_gives_the_same_gradients(name, reentrant):
    gradients = []
    for checkpoints in (False, True):
        model = with_prefix(name).train()
        if checkpoints:
            model.base_model.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(1)  # for dropout
        output_of(model, ARCHITECTURES[name].batch()).pow(2).mean().backward()
        gradients.append([part.grad for site in sites_of(model) for part in states_of(site)])
    for one, other in zip(*gradients, strict=True):
        assert_near(one, other)


# Several adapters

MIXED = ["BERT", "ModernBERT", "DeBERTa", "DeBERTa-v2/v3", "Llama", "Mistral", "Bloom", "Falcon"]
MIXED += ["T5", "BART", "ViT"]


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
