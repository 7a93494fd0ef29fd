"""Builds the model of each mode; runs in both environments, so libraries are imported late.

All models of one worker share the frozen weights: they fit into memory together, and whoever comes
next finds the caches as the one before left them.
"""

import copy
import random
from typing import Any

import torch
from modes import BOTTLENECK, OURS, PREFIX, RANK, SIZES, Mode
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

VOCABULARY = 30522


def build_base(size: str, device: str, dtype: torch.dtype) -> nn.Module:
    """Returns an untrained BERT with a frozen body and a head for two classes."""
    num_layers, hidden_size, heads, feed_forward = SIZES[size]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        attn_implementation="sdpa",
    )
    model = BertForSequenceClassification(config).to(device, dtype)
    model.bert.requires_grad_(False)
    return model


def build_batch(batch: int, sequence: int, device: str) -> dict[str, Tensor]:
    """Returns random tokens, ``batch x sequence``, padded to between half and the whole length."""
    generator = torch.Generator().manual_seed(1)
    rng = random.Random(1)
    mask = torch.ones(batch, sequence, dtype=torch.long)
    for row in mask[1:]:
        row[rng.randint(sequence // 2, sequence) :] = 0
    return {
        "input_ids": torch.randint(VOCABULARY, (batch, sequence), generator=generator).to(device),
        "attention_mask": mask.to(device),
        "labels": torch.randint(2, (batch,), generator=generator).to(device),
    }


def build(mode: Mode, base: nn.Module, *, compiled: bool) -> nn.Module:
    """Returns a model of ``mode`` in training mode, on the weights of ``base`` but for the head.

    Args:
        mode: What to build.
        base: As `build_base` gives it.
        compiled: Whether the model will be compiled, which the caller does.
    """
    shared = {id(weight): weight for weight in base.bert.parameters()}
    model = copy.deepcopy(base, shared)
    num_layers = base.config.num_hidden_layers
    layers = list(range(num_layers // 2 if mode.placement == "top" else 0, num_layers))
    if mode.library == "floor":
        model = _floor(model, mode.method, layers, compiled=compiled)
    elif mode.library != "frozen":
        model = BUILDERS[mode.library](model, mode.method, layers)
    parameter = next(base.parameters())
    return model.to(parameter.device, parameter.dtype).train()


def _ours(model: nn.Module, method: str, layers: list[int]) -> nn.Module:
    from peft import get_peft_model

    from peft_autoconfig import AutoPEFTConfig

    config = AutoPEFTConfig(task_type="SEQ_CLS", layers_to_transform=layers, **OURS[method])
    return get_peft_model(model, config)


def _peft(model: nn.Module, method: str, layers: list[int]) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=RANK,
        target_modules=["query", "value"],
        layers_to_transform=layers,
    )
    return get_peft_model(model, config)


def _adapters(model: nn.Module, method: str, layers: list[int]) -> nn.Module:
    import adapters

    left_out = [layer for layer in range(model.config.num_hidden_layers) if layer not in layers]
    factor = model.config.hidden_size / BOTTLENECK
    configs: dict[str, Any] = {
        "serial": lambda: adapters.SeqBnConfig(reduction_factor=factor, leave_out=left_out),
        "parallel": lambda: adapters.ParBnConfig(reduction_factor=factor, leave_out=left_out),
        "prefix": lambda: adapters.PrefixTuningConfig(
            flat=True, prefix_length=PREFIX, leave_out=left_out
        ),
    }
    adapters.init(model)
    model.add_adapter("measured", config=configs[method]())
    model.train_adapter("measured")
    return model


def _floor(model: nn.Module, place: str, layers: list[int], *, compiled: bool) -> nn.Module:
    layer = model.bert.encoder.layer[layers[0]]
    leaf = Shift(model.config.hidden_size) if compiled else Leaf()
    if place == "feed_forward":
        layer.output.LayerNorm = nn.Sequential(leaf, layer.output.LayerNorm)
        return model
    attention = layer.attention.self
    attention.key = nn.Sequential(attention.key, leaf)
    attention.value = nn.Sequential(attention.value, copy.deepcopy(leaf))
    return model


class Leaf(nn.Module):
    """Makes the backward end where it stands, at no cost."""

    def forward(self, activation: Tensor) -> Tensor:
        return activation.detach().requires_grad_()


class Shift(nn.Module):
    """The same for a compiled model, where a leaf made on the way would reach nobody."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, activation: Tensor) -> Tensor:
        return activation + self.shift


BUILDERS = {"ours": _ours, "peft": _peft, "adapters": _adapters}
