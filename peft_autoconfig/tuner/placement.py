"""Where the parts go: found by the structure of a model, not by a table of names.

A stack is a `ModuleList` of like layers, each with an attention. In a layer, whatever holds
weight matrices outside the attention is the feed-forward sub-layer:

    one child with all of it          wrapped as a whole (Llama's `mlp`)
    two children, the second with     the norm is wrapped, and the first child's input tapped
      a norm in it                      (BERT's `output.LayerNorm` and `intermediate`)

Anything else raises, with what was found. Works on a model that already carries our sites.

Imports `errors`, `attention`; imported by `model`.
"""

from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..errors import PlacementError
from .attention import uses_interface

__all__ = ["LayerPlaces", "find_layers", "key_value_shape"]


@dataclass(frozen=True)
class LayerPlaces:
    """The names of the modules of one layer that take our parts.

    Attributes:
        attention: The attention that is wrapped for a prefix.
        feed_forward: The module that is wrapped for the bottlenecks.
        first_module: First module of the feed-forward sub-layer, whose input is x, when that is
            not the input of the wrapped module; else None.
        ends_in_norm: Whether the wrapped module is the norm of a post-norm layer.
        hidden_size: H of this layer.
        attention_projections: The linear modules of the attention sub-layer, for low-rank updates.
        feed_forward_projections: Those of the feed-forward sub-layer.
    """

    attention: str
    feed_forward: str
    first_module: str | None
    ends_in_norm: bool
    hidden_size: int
    attention_projections: tuple[str, ...]
    feed_forward_projections: tuple[str, ...]


def find_layers(model: nn.Module) -> list[LayerPlaces]:
    """Returns the places in each layer of ``model``, in order.

    Raises:
        PlacementError: The model has no stack of layers or several, or a layer whose
            feed-forward sub-layer is not recognised.
    """
    stacks = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and _is_stack(module)
    }
    if len(stacks) != 1:
        found = f"{len(stacks)} ({', '.join(stacks)})" if stacks else "none"
        raise PlacementError(
            f"Expected a transformer with one stack of layers whose attention goes through "
            f"transformers' attention interface, found {found} in {type(model).__name__}. "
            "Supported are encoders and decoders such as BERT, RoBERTa, ELECTRA and Llama."
        )
    ((stack, layers),) = stacks.items()
    hidden_size = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    return [_find_places(f"{stack}.{i}", layer, hidden_size) for i, layer in enumerate(layers)]


def key_value_shape(attention: nn.Module) -> tuple[int, int]:
    """Returns the number of key/value heads of ``attention`` and the size of each."""
    config = attention.config
    heads = config.num_attention_heads  # type: ignore[union-attr]
    for owner, name in ((attention, "head_dim"), (attention, "attention_head_size")):
        head_dim = getattr(owner, name, None)
        if head_dim:
            break
    else:
        head_dim = config.hidden_size // heads  # type: ignore[union-attr, operator]
    return int(getattr(config, "num_key_value_heads", None) or heads), int(head_dim)  # type: ignore[arg-type]


def _is_stack(modules: nn.ModuleList) -> bool:
    kinds = {type(layer) for layer in modules}
    return len(kinds) == 1 and all(_attention_names(layer) for layer in modules)


def _find_places(name: str, layer: nn.Module, hidden_size: int) -> LayerPlaces:
    attention = _attention_names(layer)[0]
    within = attention.split(".")[0]
    linear = {
        n: isinstance(m, nn.Linear) and "autopeft_" not in n for n, m in layer.named_modules()
    }
    projections = [n for n, is_linear in linear.items() if is_linear]

    def places(feed_forward: str, first_module: str | None) -> LayerPlaces:
        return LayerPlaces(
            attention=f"{name}.{attention}",
            feed_forward=f"{name}.{feed_forward}",
            first_module=first_module and f"{name}.{first_module}",
            ends_in_norm=first_module is not None,
            hidden_size=hidden_size,
            attention_projections=tuple(
                f"{name}.{n}" for n in projections if n.startswith(f"{within}.")
            ),
            feed_forward_projections=tuple(
                f"{name}.{n}" for n in projections if not n.startswith(f"{within}.")
            ),
        )

    rest = {
        child_name: _unwrap(child)
        for child_name, child in layer.named_children()
        if not _attention_names(child) and _num_matrices(child)
    }
    children = list(rest)
    if len(children) == 1 and _num_matrices(rest[children[0]]) > 1:
        return places(children[0], None)
    if len(children) == 2:
        norms = [n for n, child in rest[children[1]].named_children() if _is_norm(_unwrap(child))]
        if len(norms) == 1:
            return places(f"{children[1]}.{norms[0]}", children[0])
    raise PlacementError(
        f"Expected in each layer, beside its attention, one feed-forward module or two of which "
        f"the second ends in a norm; found {children} in {name} ({type(layer).__name__})."
    )


def _attention_names(module: nn.Module) -> list[str]:
    names = []
    for name, child in module.named_modules():
        if not isinstance(child, BaseTunerLayer) and uses_interface(child):
            names.append(name.removesuffix("base_layer").rstrip("."))
    return names


def _num_matrices(module: nn.Module) -> int:
    parameters = _unwrap(module).named_parameters()
    return sum(parameter.dim() > 1 and "autopeft_" not in name for name, parameter in parameters)


def _unwrap(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.dim() == 1 and not list(module.children())
