"""Adapters that workers save while somebody kills them, by the path that the product takes."""

import copy
from functools import cache
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from transformers import BertConfig, BertModel

from peft_autoconfig.front.comparison import save_adapter
from peft_autoconfig.tuner.config import AutoPEFTConfig

SIZES = {"num_hidden_layers": 2, "hidden_size": 64}


@cache
def _base() -> BertModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rest = {"vocab_size": 20, "intermediate_size": 64, "num_attention_heads": 4}
    return BertModel(BertConfig(**SIZES, **rest, max_position_embeddings=16))


def save(config: AutoPEFTConfig, folder: Path, level: float) -> None:
    """Saves an adapter whose weights are all ``level``."""
    folder.parent.mkdir(exist_ok=True)
    model = get_peft_model(copy.deepcopy(_base()), config)
    for parameter in _trained(model):
        torch.nn.init.constant_(parameter, level)
    save_adapter(model, folder)


def is_whole(config: AutoPEFTConfig, folder: Path, level: float) -> bool:
    """Returns whether the folder gives back what `save` was given."""
    if not folder.is_dir():
        return False
    model = PeftModel.from_pretrained(copy.deepcopy(_base()), folder, is_trainable=True)
    found, expected = model.peft_config["default"], get_peft_model(copy.deepcopy(_base()), config)
    return (
        sum(p.numel() for p in _trained(model)) == sum(p.numel() for p in _trained(expected)) > 0
        and all(bool((parameter == level).all()) for parameter in _trained(model))
        and found.layers_to_transform == config.layers_to_transform
    )


def _trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
