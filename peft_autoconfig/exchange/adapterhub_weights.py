"""The weights of an AdapterHub adapter: regrouped by layer, checked, and turned into ours.

    flat file -> {layer: {name: tensor}} and {name: tensor} of the prefix
              -> AutoPEFTConfig and {"serial.0.down.weight": tensor, ...}

Shapes are read from the weights, not from `reduction_factor`: the library floors a quotient of
floats, so that for a hidden size of 768 and a factor of 768 / 13 a bottleneck has the width 12.

Imports `errors`, `tuner`, `adapterhub_fields`; imported by `adapterhub`.
"""

import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import ACT2FN

from ..errors import ConfigError
from ..tuner import AutoPEFTConfig
from ..tuner.config import LEARNED
from .adapterhub_fields import Bottleneck, Prefix

__all__ = ["Shape", "Weights", "convert", "sort_by_place"]

logger = logging.getLogger(__name__)

# the second and third name are those of versions before 2.0
LAYER_KEY = (
    r"(?:.*\.)?encoder\.layer\.(\d+)\.output\."
    r"(?:adapters|layer_text_task_adapters|layer_text_lang_adapters)\.{name}\.(.+)"
)
PREFIX_KEY = r"(?:.*\.)?prefix_tunings\.{name}\.self_prefix\.(.+)"
# every layer names the one pool of prefixes, so that each is saved once more per layer
POOL = ".prefix_tuning.pool."
BOTTLENECK_KEYS = {"adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight"} | {
    "adapter_up.bias"
}


Weights = dict[str, Tensor]
Scale = float | str | None


@dataclass(frozen=True)
class Shape:
    """What of the base model decides whether weights fit."""

    hidden_size: int
    num_layers: int
    num_heads: int


def sort_by_place(tensors: Weights, name: str) -> tuple[dict[int, Weights], Weights]:
    """Returns the weights of each layer's bottleneck, and those of the prefix, by short names."""
    layer_key = re.compile(LAYER_KEY.format(name=re.escape(name)))
    prefix_key = re.compile(PREFIX_KEY.format(name=re.escape(name)))
    layers: dict[int, Weights] = {}
    prefix: Weights = {}
    unexpected = []
    for key, tensor in tensors.items():
        if POOL in key:
            continue
        if match := layer_key.fullmatch(key):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor
        elif match := prefix_key.fullmatch(key):
            prefix[match[1]] = tensor
        else:
            unexpected.append(key)
    if unexpected:
        raise ConfigError(
            f"The weights must be those of bottlenecks after the feed-forward sub-layer or of a "
            f"prefix of the adapter {name!r}; found besides {unexpected[:4]}."
        )
    return layers, prefix


def convert(
    methods: list[Bottleneck | Prefix], layers: dict[int, Weights], prefix: Weights, shape: Shape
) -> tuple[AutoPEFTConfig, Weights]:
    """Returns our configuration, and the weights by ``part.layer.piece``."""
    fields: dict[str, Any] = {}
    weights: Weights = {}
    for method in methods:
        chosen = [layer for layer in range(shape.num_layers) if layer not in method.left_out]
        if isinstance(method, Prefix):
            if method.dropout:
                logger.warning("The dropout of the prefix is left out; it has no equal here.")
            weights.update(_prefix_weights(method, prefix, chosen, shape))
            fields["prefix_length"] = _sizes(weights, "prefix.{}.key", 1, shape)
            prefix = {}
            continue
        for name, value in (("activation", method.activation), ("dropout", method.dropout)):
            if fields.setdefault(name, value) != value:
                raise ConfigError(
                    f"The {name} must be the same in both bottlenecks, got {fields[name]!r} and "
                    f"{value!r}."
                )
        factor: Scale = method.scale
        if method.part == "parallel":
            fields["parallel_scale"], factor = _parallel_scale(method, layers)
        for layer in chosen:
            pieces = _bottleneck_weights(layers.pop(layer, {}), factor, layer, shape)
            weights |= {f"{method.part}.{layer}.{name}": piece for name, piece in pieces.items()}
        size = _sizes(weights, f"{method.part}.{{}}.down.bias", 0, shape)
        fields[f"{method.part}_bottleneck_size"] = size
    if layers or prefix:
        raise ConfigError(
            f"The weights must be those that 'config' names, found besides bottlenecks in layers "
            f"{sorted(layers)} and a prefix of {sorted(prefix)}."
        )
    return AutoPEFTConfig(**fields), weights


def _parallel_scale(method: Bottleneck, layers: dict[int, Weights]) -> tuple[float | str, Scale]:
    """Returns the `parallel_scale` of our configuration, and the factor that goes elsewhere."""
    if method.scale is None:
        saved = [pieces["scaling"] for pieces in layers.values() if "scaling" in pieces]
        if all(scale.numel() == 1 for scale in saved):
            return LEARNED, LEARNED
    elif method.scale > 0:
        return method.scale, 1.0
    return 1.0, method.scale


def _bottleneck_weights(saved: Weights, factor: Scale, layer: int, shape: Shape) -> Weights:
    """Returns the projections of a layer's bottleneck, the up-projection times its factor.

    Args:
        saved: The layer's weights.
        factor: A number; None for that which the layer saved, and `LEARNED` to keep that apart.
        layer: Index of the layer.
        shape: What the weights must fit.
    """
    own_scale = factor is None or factor == LEARNED
    expected = BOTTLENECK_KEYS | ({"scaling"} if own_scale else set())
    if set(saved) != expected:
        raise ConfigError(
            f"Layer {layer} must have the weights {sorted(expected)}, got {sorted(saved)}."
        )
    hidden, size = shape.hidden_size, saved["adapter_down.0.bias"].numel()
    _check_shapes(
        saved,
        {
            "adapter_down.0.weight": (size, hidden),
            "adapter_down.0.bias": (size,),
            "adapter_up.weight": (hidden, size),
            "adapter_up.bias": (hidden,),
        },
    )
    if own_scale and saved["scaling"].numel() not in (1, hidden):
        raise ConfigError(
            f"'scaling' must be one number or {hidden}, got {saved['scaling'].numel()}."
        )
    pieces = {
        "down.weight": saved["adapter_down.0.weight"],
        "down.bias": saved["adapter_down.0.bias"],
        "up.weight": saved["adapter_up.weight"],
        "up.bias": saved["adapter_up.bias"],
    }
    if factor == LEARNED:
        return pieces | {"scale": saved["scaling"].reshape(1)}
    times = saved["scaling"].reshape(-1) if factor is None else torch.tensor([float(factor)])
    pieces["up.weight"] = pieces["up.weight"] * times[:, None]
    pieces["up.bias"] = pieces["up.bias"] * times
    return pieces


def _prefix_weights(method: Prefix, saved: Weights, chosen: list[int], shape: Shape) -> Weights:
    """Returns the keys and values of each chosen layer, ``heads x length x head_dim``."""
    length, width = method.length, 2 * len(chosen) * shape.hidden_size
    if method.activation is None:
        expected = {"control_trans"}
    else:
        linears = [f"control_trans.{i}.{piece}" for i in (0, 2) for piece in ("weight", "bias")]
        expected = {"wte.weight", *linears}
    if set(saved) != expected:
        raise ConfigError(
            f"A prefix must have the weights {sorted(expected)}, got {sorted(saved)}."
        )
    if method.activation is None:
        numbers = saved["control_trans"]
        _check_shapes(saved, {"control_trans": (length * width,)})
    else:
        inner = saved["control_trans.0.bias"].numel()
        _check_shapes(
            saved,
            {
                "wte.weight": (length, shape.hidden_size),
                "control_trans.0.weight": (inner, shape.hidden_size),
                "control_trans.2.weight": (width, inner),
                "control_trans.2.bias": (width,),
            },
        )
        first, second = (
            (saved[f"control_trans.{i}.weight"], saved[f"control_trans.{i}.bias"]) for i in (0, 2)
        )
        inside = ACT2FN[method.activation](F.linear(saved["wte.weight"], *first))
        numbers = F.linear(inside, *second)
    # length x (2 layers) x heads x head_dim: first a layer's keys, then its values
    blocks = numbers.view(length, 2 * len(chosen), shape.num_heads, -1).permute(1, 2, 0, 3)
    names = [f"prefix.{layer}.{piece}" for layer in chosen for piece in ("key", "value")]
    return dict(zip(names, blocks.contiguous(), strict=True))


def _check_shapes(saved: Weights, expected: dict[str, tuple[int, ...]]) -> None:
    for name, size in expected.items():
        if tuple(saved[name].shape) != size:
            raise ConfigError(
                f"{name} must be of shape {size} for this model, got {tuple(saved[name].shape)}."
            )


def _sizes(weights: Weights, key: str, dim: int, shape: Shape) -> int | list[int]:
    """Returns the size of a part, one int if all layers have the same."""
    names = [key.format(layer) for layer in range(shape.num_layers)]
    sizes = [weights[name].shape[dim] if name in weights else 0 for name in names]
    return sizes[0] if len(set(sizes)) == 1 else sizes
