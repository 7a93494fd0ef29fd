"""The site: what stands in a model in place of a module that it wraps.

Every site of a layer is found by `placement` and holds, for each adapter, the parts that belong
there. No site is nested in another, so the names of an adapter's weights do not depend on which
other adapters a model carries. All containers are flat (`ModuleDict[adapter] -> Linear`), since
PEFT takes the adapter's name out of a key only at its last or second to last place.

Imports `errors`, `config`; imported by `bottleneck`, `prefix` and `model`.
"""

from abc import abstractmethod
from collections.abc import Container
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import ConfigError
from .config import AutoPEFTConfig, LayerSizes

__all__ = ["InputTap", "Site"]


class Site(nn.Module, BaseTunerLayer):
    """A wrapped module with room for several adapters; abstract."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        # set by the tuner for one forward pass of a mixed batch: an adapter's name for each row
        self.batch_adapters: list[str] | None = None
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

    def shares(self, held: Container[str], num_rows: int) -> list[tuple[str, Tensor | None]]:
        """Returns which adapters are at work, and on which rows of a tensor.

        Args:
            held: The adapters that have the part in question at this site.
            num_rows: Size of the tensor's first dimension; a multiple of the batch size, since
                beams and flattened tokens repeat each row of the batch.

        Returns:
            (adapter name, indices of its rows, or None for all rows) for each adapter at work.
        """
        if self.disable_adapters:
            return []
        if self.batch_adapters is None:
            return [(name, None) for name in self.active_adapters if name in held]
        repeats = num_rows // len(self.batch_adapters)
        names = [name for name in self.batch_adapters for _ in range(repeats)]
        return [
            (name, torch.tensor([i for i, other in enumerate(names) if other == name]))
            for name in dict.fromkeys(names)
            if name in held
        ]

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
