"""What a front may say of a configuration: the sizes, the layers and the low-rank modules."""

import pytest

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import RunError
from peft_autoconfig.run.folder import RunFolder, read_front


def written(path, **config):
    member = {"trial": 0, "num_params": 10, "score": 0.5, "config": config}
    RunFolder.at(path).write_front([member])
    return path


@pytest.mark.parametrize("modules", ["all", "attention", ["query", "value"]])
def test_a_low_rank_winner_is_read(tmp_path, modules):
    run = written(tmp_path, lora_rank=4, lora_modules=modules, layers_to_transform=[0, 2])
    config = AutoPEFTConfig(lora_rank=4, lora_modules=modules, layers_to_transform=[0, 2])
    assert AutoPEFTConfig.from_search(run) == config


def test_fronts_from_before_low_rank_parts_are_read(tmp_path):
    run = written(tmp_path, serial_bottleneck_size=4, layers_to_transform=None)
    assert AutoPEFTConfig.from_search(run) == AutoPEFTConfig(serial_bottleneck_size=4)


@pytest.mark.parametrize(
    "config",
    [
        {"lora_rank": "4"},
        {"lora_rank": 4, "lora_modules": []},
        {"lora_rank": 4, "lora_modules": [1]},
        {"lora_rank": 4, "lora_modules": None},
        {"lora_rank": 4, "lora_modules": ""},
        {"serial_bottleneck_size": ["all"]},
        {"lora_rank": 4, "modules_to_save": ["encoder"]},
    ],
)
def test_damaged_low_rank_parts_are_refused(tmp_path, config):
    with pytest.raises(RunError, match="a member of the front has config"):
        read_front(written(tmp_path, **config))
