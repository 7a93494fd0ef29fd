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
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from .config import LEARNED, PARALLEL_SCALE, AutoPEFTConfig, LayerSizes
from .site import InputTap, Site

__all__ = ["FeedForwardSite", "PostNormSite"]

# BERT's standard deviation, which the AutoPEFT release gives its serial adapters
PAPER_STD = 0.02


@dataclass(frozen=True)
class Bottleneck:
    """How an adapter's bottlenecks compute; `scale` is the fixed one of the parallel adapter."""

    activation: nn.Module
    scale: float
    dropout: float


class _BottleneckSite(Site):
    """Serial and parallel bottlenecks; abstract.

    Args:
        base_layer: The wrapped module.
        sizes: Size of the input x of the sub-layer and of its output h; H for both but in models
            without a transformer layout.
        first_module: The module whose input is x, when that is not the input of `base_layer`.
    """

    adapter_layer_names = (
        "autopeft_serial_down",
        "autopeft_serial_up",
        "autopeft_parallel_down",
        "autopeft_parallel_up",
        "autopeft_parallel_scale",
    )
    # a layer may have neither part of an adapter, which PEFT must know all the same
    other_param_names = (*Site.other_param_names, "autopeft_bottleneck")

    def __init__(
        self,
        base_layer: nn.Module,
        *,
        sizes: tuple[int, int],
        first_module: nn.Module | None = None,
    ) -> None:
        super().__init__(base_layer)
        self.input_size, self.output_size = sizes
        self.tap = InputTap(first_module) if first_module is not None else None
        for part in ("serial", "parallel"):
            for direction in ("down", "up"):
                setattr(self, f"autopeft_{part}_{direction}", nn.ModuleDict())
        self.autopeft_parallel_scale = nn.ParameterDict()
        self.autopeft_bottleneck: dict[str, Bottleneck] = {}

    def update_layer(self, adapter_name: str, sizes: LayerSizes, config: AutoPEFTConfig) -> None:
        learned = config.parallel_scale == LEARNED
        self.autopeft_bottleneck[adapter_name] = Bottleneck(
            activation=ACT2FN[config.activation],
            scale=1.0 if learned else float(config.parallel_scale),
            dropout=config.dropout,
        )
        if sizes.serial:
            self._add("serial", adapter_name, sizes.serial, self.output_size, config.init_weights)
        if sizes.parallel:
            self._add(
                "parallel", adapter_name, sizes.parallel, self.input_size, config.init_weights
            )
            if learned:
                scale = nn.Parameter(torch.full((1,), PARALLEL_SCALE))
                self.autopeft_parallel_scale[adapter_name] = scale
        self._place(adapter_name, config.inference_mode)

    def restore(self) -> None:
        super().restore()
        if self.tap is not None:
            self.tap.handle.remove()

    def _add(
        self, part: str, adapter_name: str, size: int, input_size: int, init_weights: bool | str
    ) -> None:
        down, up = nn.Linear(input_size, size), nn.Linear(size, self.output_size)
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

    def _holds(self, part: str) -> bool:
        """Returns whether an adapter at work has the part here."""
        held = getattr(self, f"autopeft_{part}_down")
        names = self.active_adapters if self.batch_adapters is None else self.batch_adapters
        return not self.disable_adapters and any(name in held for name in names)

    def _with(self, part: str, total: Tensor, x: Tensor) -> Tensor:
        """Returns ``total`` with the outputs of one part for ``x`` added."""
        held = getattr(self, f"autopeft_{part}_down")
        return self.added(total, x, held, partial(self._output, part))

    def _output(self, part: str, adapter_name: str, x: Tensor) -> Tensor:
        down = getattr(self, f"autopeft_{part}_down")[adapter_name]
        up = getattr(self, f"autopeft_{part}_up")[adapter_name]
        settings = self.autopeft_bottleneck[adapter_name]
        x = self._cast_input_dtype(x, down.weight.dtype)
        output: Tensor = up(settings.activation(down(x)))
        if part == "parallel":
            learned = adapter_name in self.autopeft_parallel_scale
            output = output * (
                self.autopeft_parallel_scale[adapter_name] if learned else settings.scale
            )
        return F.dropout(output, settings.dropout, self.training)


class PostNormSite(_BottleneckSite):
    """The norm that ends a post-norm layer, with bottlenecks added to what it normalises."""

    def forward(self, residual_sum: Tensor) -> Tensor:
        """Returns ``LN(z + f_s(LN(z)) + scale f_p(x))`` for ``z = x + h`` of ``... x H``."""
        assert self.tap is not None, "a post-norm site is made with the first module"
        total = self._with("parallel", residual_sum, self.tap.take())
        if self._holds("serial"):
            total = self._with("serial", total, self.base_layer(residual_sum))
        output: Tensor = self.base_layer(total)
        return output


class FeedForwardSite(_BottleneckSite):
    """A feed-forward sub-layer, its last module, or any linear module, with bottlenecks to it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns ``h + f_s(h) + scale f_p(x)`` for ``h = base_layer(...)`` of ``... x H``."""
        output = self.base_layer(*args, **kwargs)
        x = self.tap.take() if self.tap is not None else args[0]
        h, *rest = output if isinstance(output, tuple) else (output,)
        total = self._with("serial", self._with("parallel", h, x), h)
        return (total, *rest) if isinstance(output, tuple) else total
