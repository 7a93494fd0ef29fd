"""Low-rank updates of the linear modules within a site's sub-layer.

    W x  ->  W x + scale B A x        A: in -> r, B: r -> out, no bias

An update hangs on its module by a forward hook and its weights live in the site of the sub-layer:
a site within a site would change the names of weights with the adapters that a model carries.

Imports `errors`, `config`; imported by `site`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ..errors import ConfigError, PlacementError

__all__ = ["LowRankHook", "LowRankSettings", "changed_weight", "linear_sizes"]


@dataclass(frozen=True)
class LowRankSettings:
    """How an adapter's low-rank updates compute."""

    scale: float
    dropout: float


class LowRankHook:
    """Adds a site's low-rank updates to the output of one linear module.

    Args:
        module: The linear module.
        update: What is added to its output, a function of both its input and its output.
    """

    def __init__(self, module: nn.Module, update: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.module = module
        self.update = update
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if module is not self.module:
            raise RuntimeError(
                "Low-rank updates cannot follow a module into the copies that nn.DataParallel "
                "makes of it, as Trainer does by itself on several GPUs; start the script with "
                "`accelerate launch` or `torchrun` instead, or show it one GPU."
            )
        return self.update(args[0], output)


def linear_sizes(module: nn.Module) -> tuple[int, int]:
    """Returns the sizes of input and output of a linear module.

    Raises:
        PlacementError: The module is not linear.
    """
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if not all(isinstance(size, int) for size in sizes):
        raise PlacementError(
            "Expected a linear module (one with in_features and out_features, or transformers' "
            f"Conv1D), got {type(module).__name__}; name other modules in target_modules."
        )
    return int(sizes[0]), int(sizes[1])  # type: ignore[arg-type]


def low_rank_output(
    x: Tensor, down: nn.Module, up: nn.Module, settings: LowRankSettings, training: bool
) -> Tensor:
    """Returns ``scale B A x``, ``... x out`` for x of ``... x in``."""
    output: Tensor = up(down(F.dropout(x, settings.dropout, training))) * settings.scale
    return output


def changed_weight(module: nn.Module, change: Tensor) -> Tensor:
    """Returns the weight of a linear module with ``change``, ``out x in``, added.

    Raises:
        ConfigError: The weight is quantised.
    """
    weight: Any = module.weight
    if not weight.is_floating_point():
        raise ConfigError(
            f"Cannot merge into weights of {weight.dtype}; load the base model in a floating "
            "dtype to merge, or keep the adapter as it is."
        )
    change = change.T if isinstance(module, Conv1D) else change
    changed: Tensor = weight.data + change.to(weight.device, weight.dtype)
    return changed
