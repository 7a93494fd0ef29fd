"""The modules: what stands in a model in place of the modules that it wraps.

Notation, for one layer with hidden size H: x is the input of the feed-forward sub-layer, h its
output before the residual is added, LN the layer's own norm. The parts are
``f(v) = up(activation(down(v)))`` with ``down: H -> D`` and ``up: D -> H``, both with bias.

    PostNormSite     wraps LN of a post-norm layer:  LN(x + h + f_s(LN(x + h)) + scale f_p(x))
    FeedForwardSite  wraps the sub-layer of others:  h + f_s(h) + scale f_p(x)
    AttentionSite    wraps an attention:             softmax(Q [P_k; K]^T) [P_v; V]

The first is AutoPEFT's and, with one part, AdapterHub's `seq_bn` or `par_bn`. All containers are
flat (`ModuleDict[adapter] -> Linear`), since PEFT takes the adapter's name out of a key only at
its last or second to last place.

Imports `attention`; imported by `model`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.activations import ACT2FN

from ..errors import ConfigError
from .attention import PREFIX_ARGUMENT, PrefixedConfig
from .config import AutoPEFTConfig, LayerSizes

__all__ = ["AttentionSite", "FeedForwardSite", "InputTap", "PostNormSite", "Site"]

# BERT's standard deviation, which the AutoPEFT release gives its serial adapters
PAPER_STD = 0.02
# As AdapterHub and PEFT draw flat prefixes; smaller ones learn more slowly (benchmarks/LOG.md)
PREFIX_STD = 1.0


class Site(nn.Module, BaseTunerLayer):
    """A wrapped module with room for several adapters; abstract."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # models read attributes of their own modules, so the wrapper has to pass them on
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    @abstractmethod
    def update_layer(self, adapter_name: str, sizes: LayerSizes, config: AutoPEFTConfig) -> None:
        """Adds the adapter's parts of the given sizes to this site."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuses: none of the parts is linear in the weights of the base model."""
        raise ConfigError(
            "Bottleneck adapters and prefixes cannot be merged into the base weights, since they "
            "are not linear in them. Use `unload()` to take them off, or keep them as they are."
        )

    def unload_and_optionally_merge_module(self, merge: bool, **_: Any) -> nn.Module:
        """Returns the wrapped module as it was before; called by PEFT's `unload`."""
        if merge:
            self.merge()
        return self.base_layer

    def _place(self, adapter_name: str, inference_mode: bool) -> None:
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _get_base_layer_device_and_dtype(
        self, base_layer: nn.Module
    ) -> tuple[torch.device | None, torch.dtype | None]:
        # quantised weights are of an integer type; their biases or norms are not
        parameters = list(base_layer.parameters())
        for parameter in parameters:
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
        return (parameters[0].device if parameters else None), None


class InputTap:
    """Remembers the input of a module until the site that needs it comes by."""

    def __init__(self, module: nn.Module) -> None:
        self.input: Tensor | None = None
        self.handle: RemovableHandle = module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.input = args[0]

    def take(self) -> Tensor:
        """Returns the remembered input, ``... x H``, and forgets it."""
        value, self.input = self.input, None
        if value is None:
            raise RuntimeError("The feed-forward sub-layer ran past its first module.")
        return value


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

    def __init__(self, base_layer: nn.Module, *, hidden_size: int) -> None:
        super().__init__(base_layer)
        self.hidden_size = hidden_size
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
        first_module: The first module of the feed-forward sub-layer, whose input is x.
        hidden_size: H.
    """

    def __init__(self, base_layer: nn.Module, *, first_module: nn.Module, hidden_size: int) -> None:
        super().__init__(base_layer, hidden_size=hidden_size)
        self.tap = InputTap(first_module)

    def forward(self, residual_sum: Tensor) -> Tensor:
        """Returns ``LN(z + f_s(LN(z)) + scale f_p(x))`` for ``z = x + h`` of ``... x H``."""
        x = self.tap.take()
        updates = self._outputs("parallel", x)
        if self._holders("serial"):
            updates += self._outputs("serial", self.base_layer(residual_sum))
        output: Tensor = self.base_layer(sum(updates, start=residual_sum))
        return output

    def unload_and_optionally_merge_module(self, merge: bool, **_: Any) -> nn.Module:
        base_layer = super().unload_and_optionally_merge_module(merge)
        self.tap.handle.remove()
        return base_layer


class FeedForwardSite(_BottleneckSite):
    """A feed-forward sub-layer as a whole, with bottlenecks after and beside it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Returns ``h + f_s(h) + scale f_p(x)`` for ``h = feed_forward(x)`` of ``... x H``."""
        output = self.base_layer(x, *args, **kwargs)
        h, *rest = output if isinstance(output, tuple) else (output,)
        updates = self._outputs("parallel", x) + self._outputs("serial", h)
        h = sum(updates, start=h)
        return (h, *rest) if isinstance(output, tuple) else h


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
