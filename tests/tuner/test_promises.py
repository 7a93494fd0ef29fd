"""What PEFT promises of a method, for each architecture and part."""

import copy

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict

from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from peft_autoconfig.errors import ConfigError, PlacementError
from peft_autoconfig.tuner.placement import find_layers

from ..conftest import NUM_LAYERS, tiny_bert, tiny_bert_classifier
from .architectures import ARCHITECTURES

# A single ReLU unit may be dead on so few tokens, hence GELU.
PARTS = {
    "serial": SerialAdapterConfig(bottleneck_size=3, activation="gelu", init_weights=False),
    "parallel": ParallelAdapterConfig(
        bottleneck_size=2, activation="gelu", scale="learned", init_weights=False
    ),
    "prefix": LayerPrefixConfig(prefix_length=4),
    "low-rank": LowRankConfig(rank=2, init_weights=False),
    "all": AutoPEFTConfig(
        serial_bottleneck_size=3,
        parallel_bottleneck_size=2,
        prefix_length=4,
        lora_rank=2,
        activation="gelu",
        init_weights=False,
        prefix_projection_size=5,
    ),
}
CONTAINERS = {
    "serial_down",
    "serial_up",
    "parallel_down",
    "parallel_up",
    "parallel_scale",
    "prefix_key",
    "prefix_value",
    "prefix_embedding",
    "prefix_projection_down",
    "prefix_projection_up",
}


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture
def model(architecture):
    return architecture.build()


@pytest.fixture
def batch(architecture):
    return architecture.batch()


@pytest.fixture(params=sorted(PARTS))
def config(request):
    return copy.deepcopy(PARTS[request.param])


def run(model, batch, **options):
    with torch.no_grad():
        return model(**batch, **options)[0]


def test_adapter_changes_the_output_and_can_be_disabled(model, config, batch):
    before = run(model, batch)
    peft_model = get_peft_model(model, config).eval()
    assert not torch.equal(run(peft_model, batch), before)
    with peft_model.disable_adapter():
        assert torch.equal(run(peft_model, batch), before)


@pytest.mark.parametrize("part", ["serial", "parallel", "low-rank"])
def test_every_part_but_the_prefix_starts_as_the_identity(model, part, batch):
    before = run(model, batch)
    config = copy.deepcopy(PARTS[part])
    config.init_weights = True
    peft_model = get_peft_model(model, config).eval()
    torch.testing.assert_close(run(peft_model, batch), before, rtol=0, atol=2e-6)


def test_only_the_adapter_is_trained(model, config, batch):
    peft_model = get_peft_model(model, config).eval()
    peft_model(**batch)[0].float().pow(2).sum().backward()
    idle = []
    for name, parameter in peft_model.named_parameters():
        assert parameter.requires_grad == ("autopeft_" in name), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            if not parameter.grad.abs().sum() > 0:
                idle.append(name)
    # what a model computes beside its output, such as T5's last cross-attention bias, may be idle
    assert not idle


def test_saved_adapter_gives_identical_outputs(model, config, batch, tmp_path):
    base = copy.deepcopy(model)
    peft_model = get_peft_model(model, config).eval()
    expected = run(peft_model, batch)
    peft_model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": True}, {"adapter_name": "other"}):
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, **options)
        # weights that lie elsewhere in memory may be multiplied in another order
        torch.testing.assert_close(run(loaded.eval(), batch), expected, rtol=1e-6, atol=2e-6)
    trainable = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    assert any(parameter.requires_grad for parameter in trainable.parameters())


def test_saved_keys_name_parts_and_no_adapter(model, config):
    keys = get_peft_model_state_dict(get_peft_model(model, config))
    assert keys
    parts = {key.split("autopeft_")[1].split(".")[0] for key in keys}
    assert all(part in CONTAINERS or part.startswith("lora_") for part in parts)
    assert not any("default" in key or "base_layer" in key for key in keys)


def test_unload_gives_the_base_model_back(model, config, batch):
    before, names = run(model, batch), list(model.state_dict())
    unloaded = get_peft_model(model, config).unload()
    assert list(unloaded.state_dict()) == names
    assert torch.equal(run(unloaded, batch), before)
    hooks = [m for m in unloaded.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooks
    again = get_peft_model(unloaded, copy.deepcopy(config)).eval()
    assert not torch.equal(run(again, batch), before)


def test_two_adapters_keep_apart(model, config, batch):
    peft_model = get_peft_model(model, config).eval()
    first = run(peft_model, batch)
    torch.manual_seed(1)
    peft_model.add_adapter("other", copy.deepcopy(config))
    peft_model.eval()
    assert torch.equal(run(peft_model, batch), first)
    peft_model.set_adapter("other")
    second = run(peft_model, batch)
    assert not torch.equal(second, first)
    trained = [n for n, p in peft_model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".other" in name for name in trained)
    peft_model.base_model.set_adapter(["default", "other"])
    both = run(peft_model, batch)
    assert not torch.equal(both, first)
    assert not torch.equal(both, second)
    peft_model.set_adapter("default")
    peft_model.delete_adapter("other")
    assert torch.equal(run(peft_model, batch), first)


def test_adapters_of_other_parts_and_layers_stand_side_by_side(model, batch, tmp_path):
    base = copy.deepcopy(model)
    one = AutoPEFTConfig(lora_rank=2, parallel_bottleneck_size=2, init_weights=False)
    two = AutoPEFTConfig(prefix_length=3, serial_bottleneck_size=2, init_weights=False)
    if all(places.repeats == 1 for places in find_layers(model)):
        one.layers_to_transform = [0]
    peft_model = get_peft_model(model, one).eval()
    first = run(peft_model, batch)
    peft_model.add_adapter("two", two)
    peft_model.eval()
    assert torch.equal(run(peft_model, batch), first)
    peft_model.set_adapter("two")
    second = run(peft_model, batch)
    peft_model.save_pretrained(tmp_path)
    # each is loaded alone, into a model without the other
    for folder, expected in ((tmp_path, first), (tmp_path / "two", second)):
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
        assert torch.equal(run(loaded, batch), expected), folder


def test_mixed_batches_give_each_row_its_own_adapter(model, config, batch, architecture):
    peft_model = get_peft_model(model, config)
    torch.manual_seed(1)
    peft_model.add_adapter("two", copy.deepcopy(config))
    peft_model.eval()
    rows = {}
    for name in ("default", "two"):
        peft_model.set_adapter(name)
        rows[name] = run(peft_model, batch)
    with peft_model.disable_adapter():
        rows["__base__"] = run(peft_model, batch)
    names = ["two", "__base__", "default"]
    if config.joined().lora_rank and "Deberta" in architecture.model.__name__:
        # its projections of relative positions are shared by the rows of the batch
        with pytest.raises(ValueError, match="Length of `adapter_names`"):
            run(peft_model, batch, adapter_names=names)
        return
    mixed = run(peft_model, batch, adapter_names=names)
    if mixed.shape[0] == mixed.shape[1] == len(names):
        pytest.skip("CLIP's output compares every text with every image")
    for i, name in enumerate(names):
        torch.testing.assert_close(mixed[i], rows[name][i], rtol=0, atol=1e-5)


def test_a_copied_model_taps_its_own_inputs(model, config, batch):
    peft_model = get_peft_model(model, config).eval()
    expected = run(peft_model, batch)
    copied = copy.deepcopy(peft_model)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            parameter.zero_()
    assert torch.equal(run(copied, batch), expected)


def test_merging_works_for_low_rank_updates_alone(model, config, batch):
    peft_model = get_peft_model(model, config).eval()
    expected = run(peft_model, batch)
    if not isinstance(config, LowRankConfig):
        with pytest.raises(ValueError, match="cannot be merged"):
            peft_model.merge_and_unload()
        assert torch.equal(run(peft_model, batch), expected)
        return
    peft_model.merge_adapter()
    torch.testing.assert_close(run(peft_model, batch), expected, rtol=1e-4, atol=1e-4)
    peft_model.unmerge_adapter()
    torch.testing.assert_close(run(peft_model, batch), expected, rtol=1e-4, atol=1e-4)
    merged = peft_model.merge_and_unload(safe_merge=True)
    assert not any("autopeft_" in name for name in merged.state_dict())
    torch.testing.assert_close(run(merged, batch), expected, rtol=1e-4, atol=1e-4)


def test_classifier_is_saved_and_loaded_by_its_name(config, tmp_path):
    batch = ARCHITECTURES["BERT"].batch()
    tiny_bert_classifier().save_pretrained(tmp_path / "base")
    base = type(tiny_bert_classifier()).from_pretrained(tmp_path / "base").eval()
    config.task_type = "SEQ_CLS"
    peft_model = get_peft_model(base, config).eval()
    torch.nn.init.normal_(peft_model.base_model.classifier.modules_to_save["default"].weight)
    peft_model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "adapter", num_labels=3
    )
    assert torch.equal(run(loaded.eval(), batch), run(peft_model, batch))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AutoPEFTConfig(prefix_length=1, layers_to_transform=[NUM_LAYERS]), r"indices in \[0, 4\)"),
        (AutoPEFTConfig(serial_bottleneck_size=[1, 2]), "a list of 4"),
        (LowRankConfig(modules=["q_proj"]), "attention_self_query"),
    ],
)
def test_a_config_that_does_not_fit_leaves_the_model_untouched(config, message):
    model = tiny_bert()
    names = list(model.state_dict())
    with pytest.raises((ConfigError, PlacementError), match=message):
        get_peft_model(model, config)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    "config",
    [
        SerialAdapterConfig(bottleneck_size=[2, 2, 2]),
        AutoPEFTConfig(prefix_length=2, layers_to_transform=[0]),
    ],
)
def test_shared_layers_cannot_be_chosen_one_by_one(config):
    with pytest.raises(ConfigError, match="share their weights"):
        get_peft_model(ARCHITECTURES["ALBERT"].build(), config)


def test_a_model_without_layers_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(PlacementError, match="one stack of layers"):
        get_peft_model(model, AutoPEFTConfig(prefix_length=1))


def test_an_unsupported_attention_is_refused():
    model = tiny_bert()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(PlacementError, match="got 'flex_attention'"):
        get_peft_model(model, AutoPEFTConfig(prefix_length=1))
    get_peft_model(model, AutoPEFTConfig(serial_bottleneck_size=1))
