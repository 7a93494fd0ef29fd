"""Low-rank updates and bottlenecks of named modules, against their formulas."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from peft_autoconfig.errors import ConfigError, PlacementError

from .architectures import ARCHITECTURES


class Net(nn.Module):
    """A model without layers: two linear modules of unequal widths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture
def x():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["BERT", "Llama", "GPT-2", "T5"])
def test_updates_are_those_of_pefts_lora(name):
    model, batch = ARCHITECTURES[name].build(), ARCHITECTURES[name].batch()
    ours = get_peft_model(
        copy.deepcopy(model), LowRankConfig(rank=2, scale=3.0, init_weights=False)
    ).eval()
    sites = [m for m in ours.modules() if getattr(m, "projections", None)]
    names = [name for site in sites for name in site.projections.values()]
    config = LoraConfig(r=2, lora_alpha=6, target_modules=names, fan_in_fan_out=name == "GPT-2")
    theirs = get_peft_model(model, config).eval()
    for site in sites:
        for label, projection in site.projections.items():
            lora = theirs.base_model.model.get_submodule(projection)
            down = getattr(site, f"autopeft_lora_down_{label}")["default"].weight
            up = getattr(site, f"autopeft_lora_up_{label}")["default"].weight
            lora.lora_A["default"].weight.data.copy_(down.data)
            lora.lora_B["default"].weight.data.copy_(up.data)
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch)[0], theirs(**batch)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("feed_forward", {"gate_proj", "up_proj", "down_proj"}),
        (["v_proj", "up_proj"], {"v_proj", "up_proj"}),
    ],
)
def test_modules_choose_the_projections(modules, expected):
    model = get_peft_model(ARCHITECTURES["Llama"].build(), LowRankConfig(modules=modules))
    names = {
        name.rpartition(".")[2]
        for module in model.modules()
        for name in getattr(module, "projections", {}).values()
    }
    assert names == expected


def test_excluded_modules_get_nothing():
    config = AutoPEFTConfig(
        lora_rank=2, serial_bottleneck_size=2, exclude_modules=["up_proj", "layers.1.mlp"]
    )
    model = get_peft_model(ARCHITECTURES["Llama"].build(), config)
    names = [name for name, _ in model.named_parameters() if "autopeft_" in name]
    assert any("layers.0.mlp" in name for name in names)
    assert not any("layers.1.mlp" in name or "up_proj" in name for name in names)


def test_bottlenecks_of_named_modules_follow_the_formula(x):
    torch.manual_seed(0)
    net = Net()
    config = AutoPEFTConfig(
        serial_bottleneck_size=2,
        parallel_bottleneck_size=3,
        lora_rank=1,
        target_modules=["first"],
        activation="gelu",
        init_weights=False,
    )
    model = get_peft_model(copy.deepcopy(net), config)
    site = model.base_model.model.first

    def bottleneck(part, v):
        down = getattr(site, f"autopeft_{part}_down")["default"]
        up = getattr(site, f"autopeft_{part}_up")["default"]
        return up(nn.functional.gelu(down(v)))

    low_rank = site.autopeft_lora_up_target["default"](site.autopeft_lora_down_target["default"](x))
    h = net.first(x) + low_rank
    h = h + bottleneck("serial", h) + 4.0 * bottleneck("parallel", x)
    torch.testing.assert_close(model(x), net.second(torch.relu(h)))


@pytest.mark.parametrize("targets", ["all-linear", ["first", "second"], r".*(first|second)"])
def test_named_modules_count_as_layers(targets, x):
    config = ParallelAdapterConfig(
        bottleneck_size=[0, 2], target_modules=targets, init_weights=False
    )
    if targets == "all-linear":
        pytest.importorskip("transformers")
        model = ARCHITECTURES["BERT"].build()
        model.first = model.second = None
        names = _adapted(get_peft_model(model, ParallelAdapterConfig(target_modules=targets)))
        assert any("attention.self.query" in name for name in names)
        return
    assert {name.split(".")[0] for name in _adapted(get_peft_model(Net(), config))} == {"second"}


def _adapted(model):
    names = [name for name, _ in model.base_model.model.named_parameters() if "autopeft_" in name]
    assert names
    return names


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (SerialAdapterConfig(target_modules=["third"]), ValueError, "not found in the base model"),
        (LayerPrefixConfig(target_modules=["first"]), PlacementError, "attention"),
        (SerialAdapterConfig(bottleneck_size=[1], target_modules="first|second"), ConfigError, "2"),
        (SerialAdapterConfig(), PlacementError, "transformer"),
    ],
)
def test_named_modules_that_do_not_fit_are_refused(config, error, message):
    net = Net()
    names = list(net.state_dict())
    with pytest.raises(error, match=message):
        get_peft_model(net, config)
    assert list(net.state_dict()) == names


def test_modules_that_are_not_linear_are_refused():
    net = nn.Sequential(nn.Conv1d(2, 2, 1))
    with pytest.raises(PlacementError, match="a linear module"):
        get_peft_model(net, LowRankConfig(target_modules=["0"]))


def test_places_within_each_other_are_refused():
    model = ARCHITECTURES["Llama"].build()
    config = AutoPEFTConfig(lora_rank=1, prefix_length=1, target_modules=["self_attn", "q_proj"])
    with pytest.raises(PlacementError, match="within it"):
        get_peft_model(model, config)
    peft_model = get_peft_model(model, LowRankConfig(target_modules=["up_proj"]))
    with pytest.raises(PlacementError, match="within it"):
        peft_model.add_adapter("other", LowRankConfig())


def test_merging_minds_the_layout_of_the_weights(x):
    torch.manual_seed(0)
    net = nn.Sequential(Conv1D(5, 6), nn.Linear(5, 3))
    config = LowRankConfig(rank=2, scale=3.0, target_modules=["0", "1"], init_weights=False)
    model = get_peft_model(net, config)
    expected = model(x)
    torch.testing.assert_close(model.merge_and_unload()(x), expected)


def test_a_merge_that_is_not_finite_changes_nothing():
    model = get_peft_model(ARCHITECTURES["BERT"].build(), LowRankConfig(init_weights=False))
    site = next(m for m in model.modules() if getattr(m, "projections", None))
    before = {label: hook.module.weight.clone() for label, hook in site.hooks.items()}
    last = list(site.hooks)[-1]
    getattr(site, f"autopeft_lora_up_{last}")["default"].weight.data.fill_(torch.inf)
    with pytest.raises(ConfigError, match="adapter default seems to be broken"):
        site.merge(safe_merge=True)
    assert all(torch.equal(site.hooks[label].module.weight, before[label]) for label in before)


def test_merging_twice_warns_and_deleting_leaves_nothing(x):
    model = get_peft_model(Net(), LowRankConfig(target_modules=["first"], init_weights=False))
    model.merge_adapter()
    expected = model(x)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    assert torch.equal(model(x), expected)
    model.add_adapter("other", LowRankConfig(target_modules=["first"]))
    model.delete_adapter("other")
    assert "other" not in model.base_model.model.first.low_rank


def test_dropout_acts_in_training_alone(x):
    config = AutoPEFTConfig(
        lora_rank=2,
        serial_bottleneck_size=2,
        dropout=0.5,
        target_modules=["first"],
        init_weights=False,
    )
    model = get_peft_model(Net(), config)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
