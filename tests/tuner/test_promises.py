"""What PEFT promises of a method, for each architecture and part."""

import copy

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict

from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from peft_autoconfig.errors import ConfigError, PlacementError

from ..conftest import NUM_LAYERS, tiny_bert, tiny_bert_classifier

PARTS = {
    "serial": SerialAdapterConfig(bottleneck_size=3, activation="gelu", init_weights=False),
    "parallel": ParallelAdapterConfig(bottleneck_size=2, activation="gelu", init_weights=False),
    "prefix": LayerPrefixConfig(prefix_length=4),
    "all": AutoPEFTConfig(
        serial_bottleneck_size=3,
        parallel_bottleneck_size=[2, 0, 1, 2],
        prefix_length=4,
        layers_to_transform=[0, 2],
        activation="gelu",  # a single ReLU unit may be dead on so few tokens
        init_weights=False,
    ),
}


@pytest.fixture(params=sorted(PARTS))
def config(request):
    return copy.deepcopy(PARTS[request.param])


def run(model, batch):
    with torch.no_grad():
        return model(**batch)[0]


def test_adapter_changes_the_output_and_can_be_disabled(model, config, batch):
    before = run(model, batch)
    peft_model = get_peft_model(model, config)
    assert not torch.equal(run(peft_model, batch), before)
    with peft_model.disable_adapter():
        assert torch.equal(run(peft_model, batch), before)


@pytest.mark.parametrize("part", ["serial", "parallel"])
def test_bottlenecks_start_as_the_identity(model, part, batch):
    before = run(model, batch)
    config = copy.deepcopy(PARTS[part])
    config.init_weights = True
    torch.testing.assert_close(run(get_peft_model(model, config), batch), before, rtol=0, atol=1e-6)


def test_only_the_adapter_is_trained(model, config, batch):
    peft_model = get_peft_model(model, config)
    peft_model(**batch)[0].float().pow(2).sum().backward()
    for name, parameter in peft_model.named_parameters():
        assert parameter.requires_grad == ("autopeft_" in name), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_saved_adapter_gives_identical_outputs(model, config, batch, tmp_path):
    base = copy.deepcopy(model)
    peft_model = get_peft_model(model, config)
    expected = run(peft_model, batch)
    peft_model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": True}, {"adapter_name": "other"}):
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, **options)
        assert torch.equal(run(loaded.eval(), batch), expected), options


def test_saved_keys_name_parts_and_no_adapter(model, config):
    keys = get_peft_model_state_dict(get_peft_model(model, config))
    assert keys
    parts = {key.split("autopeft_")[1].split(".")[0] for key in keys}
    assert parts <= {
        "serial_down",
        "serial_up",
        "parallel_down",
        "parallel_up",
        "prefix_key",
        "prefix_value",
    }
    assert not any("default" in key for key in keys)


def test_unload_gives_the_base_model_back(model, config, batch):
    before, names = run(model, batch), list(model.state_dict())
    unloaded = get_peft_model(model, config).unload()
    assert list(unloaded.state_dict()) == names
    assert torch.equal(run(unloaded, batch), before)
    assert not any(module._forward_pre_hooks for module in unloaded.modules())
    again = get_peft_model(unloaded, copy.deepcopy(config))
    assert not torch.equal(run(again, batch), before)


def test_two_adapters_keep_apart(model, config, batch):
    peft_model = get_peft_model(model, config)
    first = run(peft_model, batch)
    joined = config.joined()
    other = type(config)(**{**_fields(config), "layers_to_transform": [1, 3]})
    peft_model.add_adapter("other", other)
    assert torch.equal(run(peft_model, batch), first)
    peft_model.set_adapter("other")
    assert not torch.equal(run(peft_model, batch), first)
    trained = [n for n, p in peft_model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".other" in name for name in trained)
    peft_model.set_adapter("default")
    peft_model.delete_adapter("other")
    assert torch.equal(run(peft_model, batch), first)
    assert config.joined() == joined


def _fields(config):
    names = ("bottleneck_size", "prefix_length", "serial_bottleneck_size", "init_weights")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def test_a_copied_model_taps_its_own_inputs(model, config, batch):
    peft_model = get_peft_model(model, config)
    expected = run(peft_model, batch)
    copied = copy.deepcopy(peft_model)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            parameter.zero_()
    assert torch.equal(run(copied, batch), expected)


def test_merging_is_refused_with_a_reason(model, config):
    with pytest.raises(ValueError, match="cannot be merged"):
        get_peft_model(model, config).merge_and_unload()


def test_classifier_is_saved_and_loaded_by_its_name(config, batch, tmp_path):
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
    ],
)
def test_a_config_of_another_depth_leaves_the_model_untouched(config, message):
    model = tiny_bert()
    names = list(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        get_peft_model(model, config)
    assert list(model.state_dict()) == names


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
