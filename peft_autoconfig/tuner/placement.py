"""Where the parts go: found by the structure of a model, not by a table of names.

A stack is a `ModuleList` of like layers, each with an attention, or, in a hybrid model, some with
another module that mixes tokens in its place. In a layer, whatever holds
weight matrices outside the attention sub-layers is the feed-forward sub-layer:

    one child with all of it          wrapped as a whole (Llama's `mlp`)
    two children, the second with     the norm is wrapped, and the first child's input tapped
      a norm in it                      (BERT's `output.LayerNorm` and `intermediate`)
    several children, the last one    the last is wrapped, and the first child's input tapped
      a single linear module            (BART's `fc2` and `fc1`)

Anything else raises, with what was found. Works on a model that already carries our sites.

Imports `errors`, `low_rank`, `modules`, `site`; imported by `plan`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..errors import PlacementError
from .low_rank import linear_sizes
from .modules import (
    Found,
    attentions,
    below,
    children,
    is_attention,
    is_linear,
    is_norm,
    num_matrices,
    projections,
    unwrap,
)
from .site import Site

__all__ = ["LayerPlaces", "find_layers", "stacks_of_layers"]


@dataclass(frozen=True)
class LayerPlaces:
    """The names of the modules of one layer that take our parts.

    Attributes:
        attention: The self-attention, which is wrapped for a prefix, or what stands in its place
            (Qwen3-Next's `linear_attn`), which takes no prefix.
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
        names = _feed_forward_names(stack.module)
        for i, layer in enumerate(stack.module.children()):
            repeats = _repeats(layer, holder_size) if holder_size else 1
            places.append(_find_places(Found(f"{stack.name}.{i}", layer), names, repeats))
    return places


def stacks_of_layers(model: nn.Module) -> list[list[nn.Module]]:
    """Returns the layers of each stack of ``model``, in the order of `find_layers`."""
    return [[*stack.module.children()] for stack, _ in _find_stacks(model)]


def _find_stacks(model: nn.Module) -> list[tuple[Found, int]]:
    # Each stack with the size of the list of stacks that holds it, or 0: ALBERT's groups of layers.
    lists: dict[str, nn.ModuleList] = {}
    for name, module in below(model):
        if isinstance(module, nn.ModuleList) and module not in lists.values() and _is_stack(module):
            lists[name] = module
    stacks = []
    for name, module in lists.items():
        if not any(other.startswith(f"{name}.") for other in lists):
            holders = [len(m) for n, m in lists.items() if name.startswith(f"{n}.")]
            stacks.append((Found(name, module), holders[-1] if holders else 0))
    return stacks


def _is_stack(layers: nn.ModuleList) -> bool:
    if len({type(layer) for layer in layers}) != 1:
        return False
    others = [layer for layer in layers if not _has_attention(layer)]
    if len(others) == len(layers):
        return False
    names = _feed_forward_names(layers)
    return all(len(_names(layer) - names) == 1 and names <= _names(layer) for layer in others)


def _has_attention(layer: nn.Module) -> bool:
    return not is_attention(unwrap(layer)) and bool(attentions(layer))


def _feed_forward_names(layers: nn.Module) -> set[str]:
    # The names of the feed-forward parts, for layers without an attention to tell them by.
    layer = next(filter(_has_attention, layers.children()))
    return {
        part.name.removeprefix(".")
        for part in _parts(Found("", layer))
        if num_matrices(part.module) and not attentions(part.module)
    }


def _names(layer: nn.Module) -> set[str]:
    parts = _parts(Found("", layer))
    return {part.name.removeprefix(".") for part in parts if num_matrices(part.module)}


def _repeats(layer: nn.Module, num_groups: int) -> int:
    configs = (getattr(module, "config", None) for module in layer.modules())
    depths = (getattr(config, "num_hidden_layers", None) for config in configs)
    return max(1, (next(filter(None, depths), None) or 1) // num_groups)


def _find_places(layer: Found, feed_forward_names: set[str], repeats: int) -> LayerPlaces:
    parts = [part for part in _parts(layer) if num_matrices(part.module)]
    of_attention = [part for part in parts if attentions(part.module)]
    if of_attention:
        attention = next(a for part in of_attention for a in attentions(part.module, part.name))
    else:
        wanted = {f"{layer.name}.{name}" for name in feed_forward_names}
        of_attention = [part for part in parts if part.name not in wanted]
        attention = of_attention[0].name
    of_feed_forward = _without_asides([part for part in parts if part not in of_attention])
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
    layer: Found, parts: list[Found], hidden_size: int
) -> tuple[str, str | None, bool]:
    # The module to wrap, the module to tap, and whether the first of them is a norm.
    if len(parts) == 1:
        part = _without_residual(parts[0])
        first = next(projections(part), None)
        fits = first is None or linear_sizes(first.module)[0] == hidden_size
        if fits and num_matrices(part.module) > 1:
            return part.name, None, False
    if len(parts) > 1:
        tapped, last = parts[0], parts[-1]
        norms = [n for n, child in unwrap(last.module).named_children() if is_norm(child)]
        if len(parts) == 2 and len(norms) == 1:
            return f"{last.name}.{norms[0]}", tapped.name, True
        ends = [list(projections(part)) for part in (tapped, last)]
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


def _without_asides(parts: list[Found]) -> list[Found]:
    # beside its feed-forward module, a layer may hold linear ones for other ends (Gemma 4's gates)
    whole = [part for part in parts if num_matrices(part.module) > 1]
    return (
        whole
        if len(whole) == 1 and all(is_linear(p.module) for p in parts if p not in whole)
        else parts
    )


def _without_residual(part: Found) -> Found:
    # T5 keeps norm and residual around its feed-forward module; what is between them is h
    children = dict(unwrap(part.module).named_children())
    weighty = [name for name, child in children.items() if num_matrices(child)]
    has_norm = any(is_norm(child) for child in children.values())
    if isinstance(part.module, Site) or len(weighty) != 1 or not has_norm:
        return part
    return _without_residual(Found(f"{part.name}.{weighty[0]}", children[weighty[0]]))


def _parts(layer: Found) -> Iterator[Found]:
    for name, child in children(layer.module):
        part = Found(f"{layer.name}.{name}", child)
        if isinstance(child, nn.ModuleList):
            yield from _parts(part)
        else:
            yield part


def _labelled(layer: Found, parts: list[Found]) -> dict[str, str]:
    labels = {}
    for part in parts:
        for name, _ in projections(part):
            path = name.removeprefix(f"{layer.name}.").split(".")
            labels["_".join(step for step in path if step != "base_layer")] = name
    return labels


def _hidden_size(layer: Found) -> int:
    # The norms of a layer are as wide as its residual stream; those deeper inside may not be.
    inside = tuple(f"{name}." for name in attentions(layer.module))
    norms = {
        name: module
        for name, module in below(layer.module)
        if is_norm(module) and not name.startswith(inside)
    }
    if norms:
        outermost = min(norms, key=lambda name: name.count("."))
        return int(norms[outermost].weight.shape[0])  # type: ignore[index]
    for projection in projections(layer):
        return linear_sizes(projection.module)[0]
    raise PlacementError(
        f"Expected a norm or a linear module in {layer.name} ({type(layer.module).__name__}) that "
        "tells the width of the layer; found none."
    )
