"""A configuration of each method, for tests: small, and different from the identity everywhere."""

from collections.abc import Callable

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from peft_autoconfig import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from peft_autoconfig.tuner.config import LayerwiseConfig

from .architectures import ARCHITECTURES

__all__ = ["METHODS", "REPRESENTATIVE", "adapted", "output", "own_gradients"]

# One of each structure: post-norm, feed-forward as a whole, flattened tokens, shared layers,
# grouped keys, experts, two stacks, no text
REPRESENTATIVE = ("BERT", "DistilBERT", "ALBERT", "GPT-2", "OPT", "Llama", "Mixtral", "T5", "ViT")

# gelu, since of a few relu units all may be dead on so few tokens
METHODS: dict[str, Callable[..., LayerwiseConfig]] = {
    "serial": lambda **fields: SerialAdapterConfig(
        bottleneck_size=3, activation="gelu", init_weights=False, **fields
    ),
    "parallel": lambda **fields: ParallelAdapterConfig(
        bottleneck_size=2, activation="gelu", scale="learned", init_weights=False, **fields
    ),
    "prefix": lambda **fields: LayerPrefixConfig(prefix_length=3, **fields),
    "low-rank": lambda **fields: LowRankConfig(rank=2, init_weights=False, **fields),
    "all": lambda **fields: AutoPEFTConfig(
        serial_bottleneck_size=3,
        parallel_bottleneck_size=2,
        prefix_length=3,
        prefix_projection_size=4,
        lora_rank=2,
        activation="gelu",
        init_weights=False,
        **fields,
    ),
}


def adapted(architecture: str, method: str, **changes: object) -> PeftModel:
    """Returns a tiny model with an adapter, the same weights at every call.

    Args:
        architecture: A key of `ARCHITECTURES`.
        method: A key of `METHODS`.
        changes: Fields of the model's configuration that differ from `ARCHITECTURES`.
    """
    model = ARCHITECTURES[architecture].build(**changes)
    torch.manual_seed(1)
    return get_peft_model(model, METHODS[method]())


def output(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Returns the first tensor that a model gives: logits or hidden states."""
    first: Tensor = model(**batch)[0]
    return first


def own_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Returns the gradient of each trained parameter, all of which must have one."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    without = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not without, f"no gradient: {without}"
    return {name: p.grad for name, p in trained.items() if p.grad is not None}
