"""The prefix of an attention: ``softmax(Q [P_k; K]^T) [P_v; V]``.

Imports `attention`, `config`, `site`; imported by `model`.
"""

from typing import Any

import torch
from torch import nn

from .attention import PREFIX_ARGUMENT, PrefixedConfig
from .config import AutoPEFTConfig, LayerSizes
from .site import Site

__all__ = ["AttentionSite"]

# As AdapterHub and PEFT draw flat prefixes; smaller ones learn more slowly (benchmarks/LOG.md)
PREFIX_STD = 1.0


class AttentionSite(Site):
    """An attention with trained keys and values before its own.

    Args:
        base_layer: An attention that asks transformers for its function.
        num_heads: Number of key/value heads.
        head_dim: Size of each.
    """

    adapter_layer_names = ("autopeft_prefix_key", "autopeft_prefix_value")
    other_param_names = ("autopeft_length",)

    def __init__(self, base_layer: nn.Module, *, num_heads: int, head_dim: int) -> None:
        super().__init__(base_layer)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.autopeft_prefix_key = nn.ParameterDict()
        self.autopeft_prefix_value = nn.ParameterDict()
        self.autopeft_length: dict[str, int] = {}
        base_layer.config = PrefixedConfig(base_layer.config)  # type: ignore[assignment]

    def update_layer(self, adapter_name: str, sizes: LayerSizes, config: AutoPEFTConfig) -> None:
        self.autopeft_length[adapter_name] = sizes.prefix
        if sizes.prefix:
            shape = (self.num_heads, sizes.prefix, self.head_dim)
            for name in self.adapter_layer_names:
                getattr(self, name)[adapter_name] = nn.Parameter(torch.randn(shape) * PREFIX_STD)
        self._place(adapter_name, config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the attention gives with the active prefixes before its keys."""
        names = [] if self.disable_adapters else self.active_adapters
        held = [name for name in names if name in self.autopeft_prefix_key]
        if held:
            kwargs[PREFIX_ARGUMENT] = tuple(
                torch.cat([parameters[name] for name in held], dim=1)
                for parameters in (self.autopeft_prefix_key, self.autopeft_prefix_value)
            )
        return self.base_layer(*args, **kwargs)

    def unload_and_optionally_merge_module(self, merge: bool, **_: Any) -> nn.Module:
        base_layer = super().unload_and_optionally_merge_module(merge)
        base_layer.config = base_layer.config.wrapped  # type: ignore[union-attr]
        return base_layer
