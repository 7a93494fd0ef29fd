"""The modules of a base model, seen through whatever adapters wrap them.

Imports `attention`, `site`; imported by `placement` and `plan`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from .attention import uses_interface
from .site import Site

__all__ = [
    "Found",
    "attentions",
    "below",
    "children",
    "is_attention",
    "is_linear",
    "is_norm",
    "num_matrices",
    "projections",
    "unwrap",
]


class Found(NamedTuple):
    """A module of the base model; ``name`` is that of our site, where it is wrapped in one."""

    name: str
    module: nn.Module


def below(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules of the base model from ``module`` down; not those of any adapter."""
    yield name, module
    for child_name, child in children(module):
        yield from below(child, f"{name}.{child_name}" if name else child_name)


def children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields what the base model has right below ``module``, a wrapper's `base_layer` included."""
    if isinstance(module, BaseTunerLayer):
        yield "base_layer", module.get_submodule("base_layer")
    elif not isinstance(module, ModulesToSaveWrapper):
        # what is trained and saved as a whole takes no adapter
        yield from module.named_children()


def unwrap(module: nn.Module) -> nn.Module:
    """Returns what a site or another method's layer wraps, else the module itself."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def is_attention(module: nn.Module) -> bool:
    """Returns whether a module is an attention, by its forward pass or by what it is called."""
    if isinstance(module, BaseTunerLayer):
        return False
    inner = (m for m in module.modules() if m is not module)
    return uses_interface(module) or (
        "attention" in type(module).__name__.lower()
        and any(is_linear(child) for child in module.children())
        # what holds attentions is a layer, whatever it is called
        and not any(map(is_attention, inner))
    )


def attentions(module: nn.Module, name: str = "") -> list[str]:
    """Returns the names of the attentions from ``module``, which is called ``name``, down."""
    # One that is wrapped is found twice, as the site and as what it wraps.
    found = (
        n.removesuffix("base_layer").rstrip(".") for n, m in below(module, name) if is_attention(m)
    )
    return list(dict.fromkeys(found))


def projections(part: Found) -> Iterator[Found]:
    """Yields the linear modules from ``part`` down."""
    if is_linear(part.module):
        yield part
        return
    for name, child in children(part.module):
        yield from projections(Found(f"{part.name}.{name}", child))


def num_matrices(module: nn.Module) -> int:
    """Returns how many weight matrices there are from ``module`` down."""
    # Some quantised linear modules hold their matrix in a buffer of another shape.
    if is_linear(module):
        return 1
    own = sum(p.dim() > 1 for p in module.parameters(recurse=False))
    return own + sum(num_matrices(child) for _, child in children(module))


def is_linear(module: nn.Module) -> bool:
    """Returns whether a module is linear, of a quantised kind or of another PEFT method too."""
    # a site passes attributes of what it wraps on
    if isinstance(module, Site | nn.Embedding):
        return False
    return isinstance(module, Conv1D) or (
        isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
    )


def is_norm(module: nn.Module) -> bool:
    """Returns whether a module, wrapped or not, is a norm: a vector of weights and no child."""
    module = unwrap(module)
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not list(module.children())
