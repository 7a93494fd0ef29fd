"""A checkpoint that does not fit or is damaged is refused, and the base model left as it was."""

import copy
import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from peft_autoconfig import AutoPEFTConfig, SerialAdapterConfig
from peft_autoconfig.errors import ConfigError, PlacementError
from peft_autoconfig.tuner import LowRankConfig
from peft_autoconfig.tuner.site import Site

from ..conftest import tiny_bert, tiny_bert_classifier, tiny_llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PARTS = {
    "serial": SerialAdapterConfig(bottleneck_size=3, init_weights=False),
    "lora": LowRankConfig(rank=2, init_weights=False),
    "all": AutoPEFTConfig(
        serial_bottleneck_size=3,
        parallel_bottleneck_size=[2, 0, 1, 2],
        prefix_length=4,
        lora_rank=2,
        layers_to_transform=[0, 2],
        init_weights=False,
    ),
}


@pytest.fixture(params=sorted(PARTS))
def saved(request, tmp_path):
    """The folder of a saved adapter of each kind."""
    return save(tmp_path / "adapter", copy.deepcopy(PARTS[request.param]))


def save(folder, config, model=None):
    torch.manual_seed(0)
    get_peft_model(model or tiny_bert(), config).save_pretrained(folder)
    return folder


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def change_config(folder, **fields):
    record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(json.dumps({**record, **fields}), encoding="utf-8")


def check_untouched(base, load, error, match):
    """Checks that ``load`` raises and that the base model is as before."""
    modules = [(name, type(module)) for name, module in base.named_modules()]
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    trained = [parameter.requires_grad for parameter in base.parameters()]
    hooks = num_hooks(base)
    with pytest.raises(error, match=match):
        load(base)
    assert [(name, type(module)) for name, module in base.named_modules()] == modules
    assert all(torch.equal(value, weights[name]) for name, value in base.state_dict().items())
    assert [parameter.requires_grad for parameter in base.parameters()] == trained
    assert num_hooks(base) == hooks


def num_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def wrong_shape(weights):
    key = sorted(weights)[0]
    weights[key] = torch.zeros([size + 1 for size in weights[key].shape])


def unexpected_layer(weights):
    key = sorted(weights)[0]
    weights[key.replace(".layer.0.", ".layer.3.")] = weights[key].clone()
    weights[key.replace(".layer.0.", ".layer.7.")] = weights[key].clone()


def unexpected_name(weights):
    weights["base_model.model.encoder.of_no_such_name.weight"] = torch.zeros(2)


def missing_one(weights):
    del weights[sorted(weights)[0]]


def nothing(weights):
    weights.clear()


CHANGES = {
    "shape": (wrong_shape, "shape"),
    "unexpected layer": (unexpected_layer, "layer.7"),
    "unexpected name": (unexpected_name, "of_no_such_name"),
    "missing": (missing_one, "missing|lacks"),
    "nothing": (nothing, "missing|lacks"),
}


@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"is_trainable": True}])
@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_do_not_fit(saved, name, options):
    change, message = CHANGES[name]
    change_weights(saved, change)
    check_untouched(
        tiny_bert(),
        lambda base: PeftModel.from_pretrained(base, saved, **options),
        ConfigError,
        message,
    )


def test_weights_of_a_wider_model(saved):
    check_untouched(
        tiny_bert(hidden_size=64),
        lambda base: PeftModel.from_pretrained(base, saved),
        ConfigError,
        "shape",
    )


def test_weights_of_another_architecture(saved):
    check_untouched(
        tiny_llama(),
        lambda base: PeftModel.from_pretrained(base, saved),
        (ConfigError, PlacementError),
        "encoder.layer",
    )


def test_weights_of_a_model_with_a_head(saved):
    check_untouched(
        tiny_bert_classifier(),
        lambda base: PeftModel.from_pretrained(base, saved),
        ConfigError,
        "missing|lacks|bert.encoder",
    )


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\x00garbage" * 40,
    "header": lambda content: content[:8] + b"x" + content[9:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights(saved, damage):
    file = saved / WEIGHTS
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    check_untouched(
        tiny_bert(), lambda base: PeftModel.from_pretrained(base, saved), ConfigError, WEIGHTS
    )


def test_lost_weights(saved):
    (saved / WEIGHTS).unlink()
    # PEFT's own error, after PEFT has changed the model: it has no hook before that one
    with pytest.raises(ValueError, match=str(saved)):
        PeftModel.from_pretrained(tiny_bert(), saved)


FIELDS = {
    "sizes": ({"serial_bottleneck_size": [1, 2]}, "2"),
    "layer": ({"layers_to_transform": [9]}, "9"),
    "activation": ({"activation": "curly"}, "curly"),
    "negative": ({"prefix_length": -1}, "prefix_length"),
    "text": ({"lora_rank": "many"}, "lora_rank"),
    "off": (
        {
            "serial_bottleneck_size": 0,
            "parallel_bottleneck_size": 0,
            "prefix_length": 0,
            "lora_rank": 0,
        },
        "off",
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_impossible_fields(tmp_path, name):
    fields, message = FIELDS[name]
    folder = save(tmp_path, copy.deepcopy(PARTS["all"]))
    change_config(folder, **fields)
    check_untouched(
        tiny_bert(), lambda base: PeftModel.from_pretrained(base, folder), ConfigError, message
    )


def test_other_sizes_than_the_config_says(tmp_path):
    folder = save(tmp_path, copy.deepcopy(PARTS["all"]))
    change_config(folder, serial_bottleneck_size=5)
    check_untouched(
        tiny_bert(), lambda base: PeftModel.from_pretrained(base, folder), ConfigError, "shape"
    )


@pytest.mark.parametrize("name", ["shape", "unexpected name", "missing"])
def test_a_second_adapter_that_does_not_fit_leaves_the_first(saved, name, batch):
    change, message = CHANGES[name]
    peft_model = PeftModel.from_pretrained(tiny_bert(), saved).eval()
    with torch.no_grad():
        before = peft_model(**batch)[0]
    change_weights(saved, change)
    with pytest.raises(ConfigError, match=message):
        peft_model.load_adapter(saved, "other")
    assert list(peft_model.peft_config) == ["default"]
    assert not [key for key in peft_model.state_dict() if ".other." in key]
    with torch.no_grad():
        assert torch.equal(peft_model(**batch)[0], before)


def test_a_good_checkpoint_loads(saved):
    peft_model = PeftModel.from_pretrained(tiny_bert(), saved)
    assert any(isinstance(module, Site) for module in peft_model.modules())
