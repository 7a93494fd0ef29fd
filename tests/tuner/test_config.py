import json

import pytest
from peft import PeftConfig

from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.tuner import LayerSizes

CONFIGS = [
    SerialAdapterConfig(bottleneck_size=3, layers_to_transform=[2, 0]),
    ParallelAdapterConfig(bottleneck_size=[0, 2, 3, 0], scale=2.0),
    ParallelAdapterConfig(bottleneck_size=2, scale="learned", dropout=0.1),
    LayerPrefixConfig(prefix_length=5, layers_to_transform=1),
    LayerPrefixConfig(prefix_length=5, projection_size=7),
    LowRankConfig(rank=[0, 2, 3, 0], modules=["value", "query"], scale=2.0),
    LowRankConfig(target_modules=["b", "a"], exclude_modules="x.*"),
    AutoPEFTConfig(lora_rank=1, prefix_length=2, layers_to_transform={"lora": [3], "prefix": 0}),
    AutoPEFTConfig(serial_bottleneck_size=1, prefix_length=[1, 0, 0, 2], activation="gelu"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_saved_config_comes_back_as_it_was(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert PeftConfig.from_pretrained(tmp_path) == config
    json.loads((tmp_path / "adapter_config.json").read_text())


def test_sizes_are_masked_by_layers():
    config = AutoPEFTConfig(
        serial_bottleneck_size=7, prefix_length=[1, 2, 3], layers_to_transform=[2, 1]
    )
    assert config.layers_to_transform == [1, 2]
    assert config.layer_sizes(3) == [
        LayerSizes(0, 0, 0),
        LayerSizes(7, 0, 2),
        LayerSizes(7, 0, 3),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "everything is off"),
        ({"prefix_length": 1, "layers_to_transform": []}, "everything is off"),
        ({"prefix_length": [1, 0], "layers_to_transform": [1]}, "everything is off"),
        ({"serial_bottleneck_size": -1}, "got -1"),
        ({"serial_bottleneck_size": 1.5}, "got 1.5"),
        ({"serial_bottleneck_size": True}, "got True"),
        ({"parallel_bottleneck_size": []}, r"got \[\]"),
        ({"prefix_length": "3"}, "got '3'"),
        ({"prefix_length": 1, "layers_to_transform": [-1]}, r"got \[-1\]"),
        ({"prefix_length": 1, "layers_to_transform": [1, 1]}, "distinct"),
        ({"prefix_length": [1, 2], "layers_to_transform": [2]}, r"indices in \[0, 2\)"),
        ({"prefix_length": [1, 2], "serial_bottleneck_size": [1, 2, 3]}, "a list of 3"),
        ({"serial_bottleneck_size": 1, "activation": "rleu"}, "got 'rleu'"),
        ({"parallel_bottleneck_size": 1, "parallel_scale": 0}, "above 0"),
        ({"prefix_length": 1, "init_weights": "bert"}, "got 'bert'"),
    ],
)
def test_impossible_fields_are_refused_with_what_came(fields, message):
    with pytest.raises(ConfigError, match=message):
        AutoPEFTConfig(**fields)


def test_single_methods_are_checked_too():
    with pytest.raises(ValueError, match="everything is off"):
        SerialAdapterConfig(bottleneck_size=0)
    with pytest.raises(ValueError, match="got -2"):
        LayerPrefixConfig(prefix_length=-2)
    with pytest.raises(ValueError, match="above 0"):
        ParallelAdapterConfig(scale=-4.0)


def test_each_part_may_have_its_own_layers():
    config = AutoPEFTConfig(
        serial_bottleneck_size=3,
        lora_rank=2,
        layers_to_transform={"serial": [1, 0], "lora": 2},
        prefix_length=[0, 0, 4],
    )
    assert config.layer_sizes(3) == [
        LayerSizes(serial=3),
        LayerSizes(serial=3),
        LayerSizes(prefix=4, lora=2),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"serial_bottleneck_size": [0, 1], "layers_to_transform": {"serial": [0]}},
            "everything is",
        ),
        ({"layers_to_transform": {"attention": [0]}}, r"got \['attention'\]"),
        ({"layers_to_transform": {"serial": []}}, r"layers_to_transform\['serial'\] is empty"),
        ({"layers_to_transform": {}}, "must have keys among"),
        ({"dropout": 1}, r"in \[0, 1\), got 1"),
        ({"dropout": -0.1}, r"in \[0, 1\), got -0.1"),
        ({"parallel_scale": "learnt"}, "got 'learnt'"),
        ({"lora_scale": 0}, "lora_scale must be a number above 0"),
        ({"lora_modules": "mlp"}, "got 'mlp'"),
        ({"lora_modules": []}, r"got \[\]"),
        ({"prefix_projection_size": 4}, "needs a prefix_length above 0"),
        ({"prefix_projection_size": -4}, "got -4"),
        ({"prefix_projection_size": [4]}, "one int for all layers"),
        ({"target_modules": []}, "a regular expression or a list"),
        ({"exclude_modules": [1]}, "a regular expression or a list"),
    ],
)
def test_fields_of_all_parts_are_checked(fields, message):
    with pytest.raises(ConfigError, match=message):
        AutoPEFTConfig(**{"serial_bottleneck_size": 1, **fields})


def test_a_part_without_layers_of_its_own_is_in_all():
    config = AutoPEFTConfig(prefix_length=2, lora_rank=1, layers_to_transform={"prefix": None})
    assert config.layers_to_transform is None
    config = AutoPEFTConfig(prefix_length=2, layers_to_transform={"prefix": None, "lora": 0})
    assert config.layer_sizes(2) == [LayerSizes(prefix=2), LayerSizes(prefix=2)]


def test_a_loaded_config_keeps_the_version_of_peft_that_wrote_it():
    config = LowRankConfig(peft_version="0.18.0")
    assert config.joined().peft_version == "0.18.0"
