"""Serial and parallel bottlenecks of a feed-forward sub-layer.

Notation, for one layer with hidden size H: x is the input of the feed-forward sub-layer, h its
output before the residual is added, LN the layer's own norm. The parts are
``f(v) = up(activation(down(v)))`` with ``down: H -> D`` and ``up: D -> H``, both with bias.

    PostNormSite     wraps LN of a post-norm layer:  LN(x + h + f_s(LN(x + h)) + scale f_p(x))
    FeedForwardSite  wraps the sub-layer of others:  h + f_s(h) + scale f_p(x)

The first is AutoPEFT's and, with one part, AdapterHub's `seq_bn` or `par_bn`.

Imports `config`, `site`; imported by `model`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .config import AutoPEFTConfig, LayerSizes
from .site import InputTap, Site

__all__ = ["FeedForwardSite", "PostNormSite"]

# BERT's standard deviation, which the AutoPEFT release gives its serial adapters
PAPER_STD = 0.02


@dataclass(frozen=True)
class Bottleneck:
    """How an adapter's bottlenecks compute: the activation's name and the parallel scale."""

    activation: str
    scale: float


class _BottleneckSite(Site):
    """Serial and parallel bottlenecks; abstract."""

    adapter_layer_names = (
        "autopeft_serial_down",
        "autopeft_serial_up",
        "autopeft_parallel_down",
        "autopeft_parallel_up",
    )
    # a layer may have neither part of an adapter, which PEFT must know all the same
    other_param_names = ("autopeft_bottleneck",)

    def __init__(
        self, base_layer: nn.Module, *, hidden_size: int, first_module: nn.Module | None
    ) -> None:
        super().__init__(base_layer)
        self.hidden_size = hidden_size
        self.tap = InputTap(first_module) if first_module is not None else None
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict())
        self.autopeft_bottleneck: dict[str, Bottleneck] = {}

    def update_layer(self, adapter_name: str, sizes: LayerSizes, config: AutoPEFTConfig) -> None:
        self.autopeft_bottleneck[adapter_name] = Bottleneck(
            config.activation, config.parallel_scale
        )
        self._add("serial", adapter_name, sizes.serial, config.init_weights)
        self._add("parallel", adapter_name, sizes.parallel, config.init_weights)
        self._place(adapter_name, config.inference_mode)

    def _add(self, part: str, adapter_name: str, size: int, init_weights: bool | str) -> None:
        if not size:
            return
        down, up = nn.Linear(self.hidden_size, size), nn.Linear(size, self.hidden_size)
        if init_weights:
            nn.init.zeros_(down.bias)
            nn.init.zeros_(up.bias)
            if init_weights == "paper" and part == "serial":
                nn.init.normal_(down.weight, std=PAPER_STD)
                nn.init.normal_(up.weight, std=PAPER_STD)
            else:
                nn.init.zeros_(up.weight)
        getattr(self, f"autopeft_{part}_down")[adapter_name] = down
        getattr(self, f"autopeft_{part}_up")[adapter_name] = up

    def unload_and_optionally_merge_module(self, merge: bool, **_: Any) -> nn.Module:
        base_layer = super().unload_and_optionally_merge_module(merge)
        if self.tap is not None:
            self.tap.handle.remove()
        return base_layer

    def _holders(self, part: str) -> list[str]:
        if self.disable_adapters:
            return []
        held = getattr(self, f"autopeft_{part}_down")
        return [name for name in self.active_adapters if name in held]

    def _outputs(self, part: str, x: Tensor) -> list[Tensor]:
        return [self._output(part, name, x) for name in self._holders(part)]

    def _output(self, part: str, adapter_name: str, x: Tensor) -> Tensor:
        down = getattr(self, f"autopeft_{part}_down")[adapter_name]
        up = getattr(self, f"autopeft_{part}_up")[adapter_name]
        settings = self.autopeft_bottleneck[adapter_name]
        output: Tensor = up(ACT2FN[settings.activation](down(self._cast(x, down.weight.dtype))))
        if part == "parallel":
            output = output * settings.scale
        return output.to(x.dtype)

    def _cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        cast: Tensor = self._cast_input_dtype(x, dtype)
        return cast


class PostNormSite(_BottleneckSite):
    """The norm that ends a post-norm layer, with bottlenecks added to what it normalises.

    Args:
        base_layer: The norm.
        hidden_size: H.
        first_module: The first module of the feed-forward sub-layer, whose input is x.
    """

    def forward(self, residual_sum: Tensor) -> Tensor:
        """Returns ``LN(z + f_s(LN(z)) + scale f_p(x))`` for ``z = x + h`` of ``... x H``."""
        assert self.tap is not None
        updates = self._outputs("parallel", self.tap.take())
        if self._holders("serial"):
            updates += self._outputs("serial", self.base_layer(residual_sum))
        output: Tensor = self.base_layer(sum(updates, start=residual_sum))
        return output


class FeedForwardSite(_BottleneckSite):
    """A feed-forward sub-layer as a whole or its last module, with bottlenecks after and beside it.

    Args:
        base_layer: The sub-layer or its last module.
        hidden_size: H.
        first_module: The first module of the sub-layer when `base_layer` is its last, else None.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns ``h + f_s(h) + scale f_p(x)`` for ``h = base_layer(...)`` of ``... x H``."""
        output = self.base_layer(*args, **kwargs)
        x = self.tap.take() if self.tap is not None else args[0]
        h, *rest = output if isinstance(output, tuple) else (output,)
        updates = self._outputs("parallel", x) + self._outputs("serial", h)
        h = sum(updates, start=h)
        return (h, *rest) if isinstance(output, tuple) else h
