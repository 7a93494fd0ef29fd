"""The site: what stands in a model in place of a module that it wraps.

Every site of a layer is found by `placement` and holds, for each adapter, the parts that belong
there, the low-rank updates of its sub-layer among them. No site is nested in another, so the names
of an adapter's weights do not depend on which other adapters a model carries. All containers are
flat (`ModuleDict[adapter] -> Linear`), since PEFT takes the adapter's name out of a key only at
its last or second to last place.

Imports `errors`, `config`, `low_rank`; imported by `bottleneck`, `prefix` and `model`.
"""

import threading
from abc import abstractmethod
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import ConfigError
from .config import AutoPEFTConfig, LayerSizes
from .low_rank import LowRankHook, LowRankSettings, changed_weight, linear_sizes, low_rank_output

__all__ = ["InputTap", "Site"]


class Site(nn.Module, BaseTunerLayer):
    """A wrapped module with room for several adapters; abstract."""

    # subclasses name their own containers; those of low-rank updates join them as they are made
    adapter_layer_names: tuple[str, ...] = ()
    other_param_names: tuple[str, ...] = ("low_rank",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        # set by the tuner for one forward pass of a mixed batch: an adapter's name for each row
        self.batch_adapters: list[str] | None = None
        self.num_beams = 1
        self.low_rank: dict[str, LowRankSettings] = {}
        # label -> (name in the base model, hook) of each linear module with a low-rank update
        self.projections: dict[str, str] = {}
        self.hooks: dict[str, LowRankHook] = {}

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
        """Adds the adapter's parts of the given sizes to this site, but for the low-rank one."""

    def update_low_rank(
        self,
        adapter_name: str,
        rank: int,
        config: AutoPEFTConfig,
        projections: Mapping[str, tuple[str, nn.Module]],
    ) -> None:
        """Adds low-rank updates of linear modules within the sub-layer to this site.

        Args:
            adapter_name: The adapter to which they belong.
            rank: Their rank, at least 1.
            config: The adapter's configuration.
            projections: label -> (name in the base model, module) of the linear modules.
        """
        self.low_rank[adapter_name] = LowRankSettings(config.lora_scale, config.dropout)
        for label, (name, module) in projections.items():
            if label not in self.projections:
                self._add_projection(label, name, module)
            in_size, out_size = linear_sizes(module)
            down = nn.Linear(in_size, rank, bias=False)
            up = nn.Linear(rank, out_size, bias=False)
            if config.init_weights:
                nn.init.zeros_(up.weight)
            getattr(self, f"autopeft_lora_down_{label}")[adapter_name] = down
            getattr(self, f"autopeft_lora_up_{label}")[adapter_name] = up

    def shares(
        self, held: Container[str], num_rows: int, *, flat: bool = False
    ) -> list[tuple[str, list[int] | None]]:
        """Returns which adapters are at work, and on which rows of a tensor.

        Args:
            held: The adapters that have the part in question at this site.
            num_rows: Size of the tensor's first dimension.
            flat: Whether that dimension runs through the tokens of all rows of the batch.

        Returns:
            (adapter name, indices of its rows, or None for all rows) for each adapter at work.

        Raises:
            ValueError: A mixed batch does not have one adapter name for each row.
        """
        if self.disable_adapters:
            return []
        if self.batch_adapters is None:
            names = [name for name in self.active_adapters if name in held]
            return [(name, None) for name in names if name not in self.merged_adapters]
        repeats, rest = divmod(num_rows, len(self.batch_adapters))
        if rest or (repeats not in (1, self.num_beams) and not flat):
            raise ValueError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(self.batch_adapters)} and {num_rows} respectively."
            )
        rows = [name for name in self.batch_adapters for _ in range(repeats)]
        return [
            (name, [i for i, other in enumerate(rows) if other == name])
            for name in dict.fromkeys(rows)
            if name in held
        ]

    def added(
        self,
        total: Tensor,
        x: Tensor,
        held: Container[str],
        output: Callable[[str, Tensor], Tensor],
    ) -> Tensor:
        """Returns ``total`` with the outputs of the adapters at work added to their rows.

        Args:
            total: ``rows x ...``.
            x: The input of the part in question, with as many rows.
            held: The adapters that have it.
            output: The part: a function of an adapter's name and rows of ``x``.
        """
        for name, rows in self.shares(held, x.shape[0], flat=x.dim() == 2):
            if rows is None:
                total = total + output(name, x).to(total.dtype)
            else:
                index = torch.tensor(rows, device=x.device)
                total = total.index_add(0, index, output(name, x[index]).to(total.dtype))
        return total

    def enable_adapters(self, enabled: bool) -> None:
        """Turns the adapters of this site on or off, after taking off what was merged."""
        if not enabled and self.merged:
            self.unmerge()
        super().enable_adapters(enabled)

    def check_mergeable(self, adapter_names: list[str]) -> None:
        """Checks that the adapters have nothing at this site but low-rank updates.

        Raises:
            ConfigError: They have more, which is not linear in the weights of the base model.
        """
        own = [n for n in self.adapter_layer_names if not n.startswith("autopeft_lora_")]
        for name in adapter_names:
            parts = [part for part in own if name in getattr(self, part)]
            if parts:
                raise ConfigError(
                    "Bottleneck adapters and prefixes cannot be merged into the base weights, "
                    f"since they are not linear in them; adapter {name!r} has {parts}. Use "
                    "`unload()` to take them off, or keep them as they are."
                )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the low-rank updates to the base weights.

        Args:
            safe_merge: Whether to check that the merged weights are finite.
            adapter_names: The adapters to merge; None for the active ones.

        Raises:
            ConfigError: An adapter has other parts as well, or the weights are quantised.
        """
        names = check_adapters_to_merge(self, adapter_names)
        self.check_mergeable(names)
        for name in names:
            if name in self.low_rank:
                self._change_weights(name, sign=1, safe=safe_merge)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Takes merged low-rank updates off the base weights again."""
        while self.merged_adapters:
            self._change_weights(self.merged_adapters.pop(), sign=-1, safe=False)

    def unload_and_optionally_merge_module(
        self,
        merge: bool,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """Returns the wrapped module as it was before; called by PEFT's `unload`."""
        if merge:
            self.merge(safe_merge, adapter_names)
        elif self.merged:
            self.unmerge()
        self.restore()
        return self.base_layer

    def restore(self) -> None:
        """Takes off what the site hung on the modules that it wraps or that stand around it."""
        for hook in self.hooks.values():
            hook.handle.remove()

    def _add_projection(self, label: str, name: str, module: nn.Module) -> None:
        names = (f"autopeft_lora_down_{label}", f"autopeft_lora_up_{label}")
        for container in names:
            setattr(self, container, nn.ModuleDict())
        self.adapter_layer_names = (*self.adapter_layer_names, *names)
        self.projections[label] = name
        self.hooks[label] = LowRankHook(module, partial(self._update, label))

    def _update(self, label: str, x: Tensor, total: Tensor) -> Tensor:
        down = getattr(self, f"autopeft_lora_down_{label}")
        up = getattr(self, f"autopeft_lora_up_{label}")

        def output(name: str, x: Tensor) -> Tensor:
            x = self._cast_input_dtype(x, down[name].weight.dtype)
            return low_rank_output(x, down[name], up[name], self.low_rank[name], self.training)

        return self.added(total, x, down, output)

    def _change_weights(self, adapter_name: str, *, sign: int, safe: bool) -> None:
        changed: dict[str, Tensor] = {}
        for label, hook in self.hooks.items():
            down = getattr(self, f"autopeft_lora_down_{label}")
            if adapter_name in down:
                up = getattr(self, f"autopeft_lora_up_{label}")
                scale = sign * self.low_rank[adapter_name].scale
                change = up[adapter_name].weight.data @ down[adapter_name].weight.data * scale
                changed[label] = changed_weight(hook.module, change)
        if safe and not all(weight.isfinite().all() for weight in changed.values()):
            raise ConfigError(
                f"NaNs detected in the merged weights. The adapter {adapter_name} seems to be "
                f"broken; {sorted(self.projections.values())} were left as they were."
            )
        for label, weight in changed.items():
            self.hooks[label].module.weight.data = weight

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
        # by thread, since a server may run one model in several
        self.inputs: dict[int, Tensor] = {}
        self.handle: RemovableHandle = module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.inputs[_thread()] = args[0]

    def take(self) -> Tensor:
        """Returns the remembered input, ``... x H``, and forgets it."""
        value = self.inputs.pop(_thread(), None)
        if value is None:
            raise RuntimeError("The feed-forward sub-layer ran past its first module.")
        return value


def _thread() -> int:
    # a compiled graph knows nothing of threads, and is run as a whole by one
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
