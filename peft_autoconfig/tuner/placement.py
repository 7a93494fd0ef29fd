"""Where the parts go: found by the structure of a model, not by a table of names.

A stack is a `ModuleList` of like layers, each with an attention. In a layer, whatever holds
weight matrices outside the attention sub-layers is the feed-forward sub-layer:

    one child with all of it          wrapped as a whole (Llama's `mlp`)
    two children, the second with     the norm is wrapped, and the first child's input tapped
      a norm in it                      (BERT's `output.LayerNorm` and `intermediate`)
    several children, the last one    the last is wrapped, and the first child's input tapped
      a single linear module            (BART's `fc2` and `fc1`)

Anything else raises, with what was found. Works on a model that already carries our sites.

Imports `errors`, `attention`, `low_rank`, `site`; imported by `plan`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import PlacementError
from .attention import uses_interface
from .low_rank import linear_sizes
from .site import Site

__all__ = ["LayerPlaces", "find_layers", "is_attention"]


@dataclass(frozen=True)
class LayerPlaces:
    """The names of the modules of one layer that take our parts.

    Attributes:
        attention: The self-attention, which is wrapped for a prefix.
        feed_forward: The module that is wrapped for the bottlenecks.
        first_module: First module of the feed-forward sub-layer, whose input is x, when that is
            not the input of the wrapped module; else None.
        ends_in_norm: Whether the wrapped module is the norm of a post-norm layer.
        hidden_size: H of this layer.
        attention_projections: The linear modules of the attention sub-layers, a cross-attention
            among them, for low-rank updates: label -> name. A label is the path inside the layer
            with underscores for dots; unlike a name, it does not change when a module is wrapped.
        feed_forward_projections: Those of the feed-forward sub-layer.
        repeats: How often the model runs this layer; above 1 when layers share their weights.
    """

    attention: str
    feed_forward: str
    first_module: str | None
    ends_in_norm: bool
    hidden_size: int
    attention_projections: dict[str, str]
    feed_forward_projections: dict[str, str]
    repeats: int = 1


class _Found(NamedTuple):
    """A module of the base model; ``name`` is that of our site, where it is wrapped in one."""

    name: str
    module: nn.Module


def find_layers(model: nn.Module) -> list[LayerPlaces]:
    """Returns the places in each layer of ``model``.

    The layers come in the order in which the model holds them. Those of several stacks follow
    each other: an encoder's before its decoder's, CLIP's text layers before its vision layers.

    Raises:
        PlacementError: The model has no stack of layers, or a layer whose feed-forward sub-layer
            is not recognised.
    """
    stacks = _find_stacks(model)
    if not stacks:
        raise PlacementError(
            "Expected a transformer with at least one stack of layers, a ModuleList of like "
            f"modules with an attention in each; found none in {type(model).__name__}."
        )
    places = []
    for stack, holder_size in stacks:
        for i, layer in enumerate(_unwrap(stack.module).children()):
            repeats = _repeats(layer, holder_size) if holder_size else 1
            places.append(_find_places(_Found(f"{stack.name}.{i}", layer), repeats))
    return places


def is_attention(module: nn.Module) -> bool:
    """Returns whether a module is an attention, by its forward pass or by what it is called."""
    if isinstance(module, BaseTunerLayer):
        return False
    return uses_interface(module) or (
        "attention" in type(module).__name__.lower()
        and any(_is_linear(child) for child in module.children())
    )


def _find_stacks(model: nn.Module) -> list[tuple[_Found, int]]:
    # Each stack with the size of the list of stacks that holds it, or 0: ALBERT's groups of layers.
    lists: dict[str, nn.Module] = {}
    for name, module in _below(model):
        if isinstance(module, nn.ModuleList) and module not in lists.values():
            if len({type(layer) for layer in module}) == 1 and all(map(_has_attention, module)):
                lists[name] = module
    stacks = []
    for name, module in lists.items():
        if not any(other.startswith(f"{name}.") for other in lists):
            holders = [len(m) for n, m in lists.items() if name.startswith(f"{n}.")]  # type: ignore[arg-type]
            stacks.append((_Found(name, module), holders[-1] if holders else 0))
    return stacks


def _has_attention(layer: nn.Module) -> bool:
    return not is_attention(_unwrap(layer)) and bool(_attentions(layer))


def _repeats(layer: nn.Module, num_groups: int) -> int:
    configs = (getattr(module, "config", None) for module in layer.modules())
    depths = (getattr(config, "num_hidden_layers", None) for config in configs)
    return max(1, (next(filter(None, depths), None) or 1) // num_groups)


def _find_places(layer: _Found, repeats: int) -> LayerPlaces:
    parts = list(_parts(layer))
    of_attention = [part for part in parts if _attentions(part.module)]
    of_feed_forward = _without_asides(
        [part for part in parts if part not in of_attention and _num_matrices(part.module)]
    )
    attention = next(a for part in of_attention for a in _attentions(part.module, part.name))
    hidden_size = _hidden_size(layer)
    feed_forward, first_module, ends_in_norm = _feed_forward(layer, of_feed_forward, hidden_size)
    return LayerPlaces(
        attention=attention,
        feed_forward=feed_forward,
        first_module=first_module,
        ends_in_norm=ends_in_norm,
        hidden_size=hidden_size,
        attention_projections=_labelled(layer, of_attention),
        feed_forward_projections=_labelled(layer, of_feed_forward),
        repeats=repeats,
    )


def _feed_forward(
    layer: _Found, parts: list[_Found], hidden_size: int
) -> tuple[str, str | None, bool]:
    # The module to wrap, the module to tap, and whether the first of them is a norm.
    if len(parts) == 1:
        part = _without_residual(parts[0])
        first = next(_projections(part), None)
        fits = first is None or linear_sizes(first.module)[0] == hidden_size
        if fits and _num_matrices(part.module) > 1:
            return part.name, None, False
    if len(parts) > 1:
        tapped, last = parts[0], parts[-1]
        norms = [n for n, child in _unwrap(last.module).named_children() if _is_norm(child)]
        if len(parts) == 2 and len(norms) == 1:
            return f"{last.name}.{norms[0]}", tapped.name, True
        ends = [list(_projections(part)) for part in (tapped, last)]
        if len(ends[0]) == len(ends[1]) == 1:
            (begin,), (end,) = ends
            (width, inner), (last_inner, out) = map(linear_sizes, (begin.module, end.module))
            # a gated layer may compute its gate by the first module as well
            if width == out == hidden_size and inner % last_inner == 0:
                return end.name.removesuffix(".base_layer"), tapped.name, False
    found = {part.name.removeprefix(f"{layer.name}."): type(part.module).__name__ for part in parts}
    raise PlacementError(
        f"Expected in each layer, beside its attention, one feed-forward module, or several of "
        f"which the last ends in a norm or is one linear module; found {found} in {layer.name} "
        f"({type(layer.module).__name__})."
    )


def _without_asides(parts: list[_Found]) -> list[_Found]:
    # beside its feed-forward module, a layer may hold linear ones for other ends (Gemma 4's gates)
    whole = [part for part in parts if _num_matrices(part.module) > 1]
    return (
        whole
        if len(whole) == 1 and all(_is_linear(p.module) for p in parts if p not in whole)
        else parts
    )


def _without_residual(part: _Found) -> _Found:
    # T5 keeps norm and residual around its feed-forward module; what is between them is h
    children = dict(_unwrap(part.module).named_children())
    weighty = [name for name, child in children.items() if _num_matrices(child)]
    has_norm = any(_is_norm(child) for child in children.values())
    if isinstance(part.module, Site) or len(weighty) != 1 or not has_norm:
        return part
    return _without_residual(_Found(f"{part.name}.{weighty[0]}", children[weighty[0]]))


def _parts(layer: _Found) -> Iterator[_Found]:
    for name, child in _children(layer.module):
        part = _Found(f"{layer.name}.{name}", child)
        if isinstance(child, nn.ModuleList):
            yield from _parts(part)
        else:
            yield part


def _labelled(layer: _Found, parts: list[_Found]) -> dict[str, str]:
    labels = {}
    for part in parts:
        for name, _ in _projections(part):
            path = name.removeprefix(f"{layer.name}.").split(".")
            labels["_".join(step for step in path if step != "base_layer")] = name
    return labels


def _projections(part: _Found) -> Iterator[_Found]:
    if _is_linear(part.module):
        yield part
        return
    for name, child in _children(part.module):
        yield from _projections(_Found(f"{part.name}.{name}", child))


def _hidden_size(layer: _Found) -> int:
    # The norms of a layer are as wide as its residual stream; those deeper inside may not be.
    inside = tuple(f"{name}." for name in _attentions(layer.module))
    norms = {
        name: module
        for name, module in _below(layer.module)
        if _is_norm(module) and not name.startswith(inside)
    }
    if norms:
        outermost = min(norms, key=lambda name: name.count("."))
        return int(norms[outermost].weight.shape[0])  # type: ignore[index]
    for projection in _projections(layer):
        return linear_sizes(projection.module)[0]
    raise PlacementError(
        f"Expected a norm or a linear module in {layer.name} ({type(layer.module).__name__}) that "
        "tells the width of the layer; found none."
    )


def _attentions(module: nn.Module, name: str = "") -> list[str]:
    # One that is wrapped is found twice, as the site and as what it wraps.
    found = (
        n.removesuffix("base_layer").rstrip(".") for n, m in _below(module, name) if is_attention(m)
    )
    return list(dict.fromkeys(found))


def _below(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules of the base model from ``module`` down; not those of any adapter."""
    yield name, module
    for child_name, child in _children(module):
        yield from _below(child, f"{name}.{child_name}" if name else child_name)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, BaseTunerLayer):
        yield "base_layer", module.get_submodule("base_layer")
    elif not isinstance(module, ModulesToSaveWrapper):
        # what is trained and saved as a whole takes no adapter
        yield from module.named_children()


def _num_matrices(module: nn.Module) -> int:
    # Some quantised linear modules hold their matrix in a buffer of another shape.
    if _is_linear(module):
        return 1
    own = sum(p.dim() > 1 for p in module.parameters(recurse=False))
    return own + sum(_num_matrices(child) for _, child in _children(module))


def _unwrap(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _is_linear(module: nn.Module) -> bool:
    # Linear, its quantised kinds and those of other PEFT methods; a site passes attributes on.
    if isinstance(module, Site | nn.Embedding):
        return False
    return isinstance(module, Conv1D) or (
        isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
    )


def _is_norm(module: nn.Module) -> bool:
    module = _unwrap(module)
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not list(module.children())
