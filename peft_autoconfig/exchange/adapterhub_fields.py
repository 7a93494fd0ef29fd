"""The fields of AdapterHub's `adapter_config.json`: which methods they say, and what we refuse.

Every field is either read, known to leave outputs as they are, or must have the value under which
our formulas are AdapterHub's. A field that is not known here must be off.

Imports `errors`; imported by `adapterhub`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.activations import ACT2FN

from ..errors import ConfigError

__all__ = ["Bottleneck", "Prefix", "read_methods"]

# versions before 2.0 named no version, and meant other functions by these names
OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
ACTIVATIONS = {"leakyrelu": "leaky_relu"}
# field -> (the library's default, the only value that has an equal here)
OF_BOTTLENECKS: dict[str, tuple[Any, Any]] = {
    "mh_adapter": (False, False),
    "output_adapter": (False, True),
    "cross_adapter": (False, False),
    "original_ln_after": (True, True),
    "ln_before": (False, False),
    "ln_after": (False, False),
    "use_gating": (False, False),
    "phm_layer": (False, False),
    "inv_adapter": (None, None),
    "invertible_adapter": (None, None),
    "stochastic_depth": (0.0, 0.0),
}
OF_SERIAL = {**OF_BOTTLENECKS, "original_ln_before": (False, True)}
OF_SERIAL["residual_before_ln"] = (True, True)
OF_PREFIXES: dict[str, tuple[Any, Any]] = {"use_gating": (False, False)}
READ = {
    "architecture",
    "dropout",
    "flat",
    "is_parallel",
    "leave_out",
    "non_linearity",
    "prefix_length",
    "scaling",
}
# of no effect on outputs: initial values, what the weights' shapes say, settings of what is off
INERT = {
    "adapter_residual_before_ln",
    "bottleneck_size",
    "cross_prefix",
    "encoder_prefix",
    "factorized_phm_W",
    "factorized_phm_rule",
    "hypercomplex_nonlinearity",
    "init_weights",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "learn_phm",
    "original_ln_before",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_rank",
    "reduction_factor",
    "residual_before_ln",
    "shared_W_phm",
    "shared_gating",
    "shared_phm_rule",
}


@dataclass(frozen=True)
class Bottleneck:
    """A bottleneck of every layer but those left out.

    Attributes:
        part: "serial" or "parallel".
        activation: Its name in `transformers.activations.ACT2FN`.
        scale: The factor of its output; None when each layer saved one of its own.
        left_out: Indices of the layers without it.
        dropout: Probability on its output in training.
    """

    part: str
    activation: str
    scale: float | None
    left_out: frozenset[int]
    dropout: float


@dataclass(frozen=True)
class Prefix:
    """A prefix of every layer's attention but those left out.

    Attributes:
        length: Number of positions, at least 1.
        activation: That of the network that yields the prefix; None when it is saved as it is.
        left_out: Indices of the layers without it.
        dropout: Probability on its numbers in training.
    """

    length: int
    activation: str | None
    left_out: frozenset[int]
    dropout: float


def read_methods(record: Mapping[str, Any]) -> list[Bottleneck | Prefix]:
    """Returns the methods that a saved adapter joins, at most one of each part.

    Args:
        record: What its `adapter_config.json` holds.

    Raises:
        ConfigError: A method or a field has no equal here, or a part is there twice.
    """
    config = record.get("config")
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"'config' must be the fields of the adapter, got {config!r}. An adapter saved before "
            "the library wrote them out must be loaded and saved again with `adapters`."
        )
    is_union = config.get("architecture") == "union"
    methods = [
        _method(_without_unused(fields, record), is_old="version" not in record)
        for fields in (config.get("configs", ()) if is_union else (config,))
    ]
    parts = [method.part if isinstance(method, Bottleneck) else "prefix" for method in methods]
    if len(set(parts)) != len(parts) or not parts:
        raise ConfigError(
            f"'configs' must join at most one serial, one parallel adapter and one prefix, got "
            f"{parts}."
        )
    return methods


def _without_unused(fields: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    if record.get("type") != "text_task":
        return dict(fields)
    # adapters of a task from before 2.0 name an invertible adapter that they do not have
    unused = ("inv_adapter", "invertible_adapter")
    return {name: value for name, value in fields.items() if name not in unused}


def _method(fields: Mapping[str, Any], *, is_old: bool) -> Bottleneck | Prefix:
    architecture = fields.get("architecture")
    if architecture == "prefix_tuning":
        return _prefix(fields)
    if architecture not in (None, "bottleneck"):
        raise ConfigError(
            f"'architecture' must be a bottleneck (null), 'prefix_tuning' or a 'union' of those, "
            f"got {architecture!r}, which has no equal here."
        )
    is_parallel = bool(fields.get("is_parallel", False))
    _check(fields, OF_BOTTLENECKS if is_parallel else OF_SERIAL)
    return Bottleneck(
        part="parallel" if is_parallel else "serial",
        activation=_activation(fields, is_old=is_old),
        scale=_scale(fields.get("scaling", 1.0)),
        left_out=_left_out(fields),
        dropout=float(fields.get("dropout", 0.0)),
    )


def _prefix(fields: Mapping[str, Any]) -> Prefix:
    _check(fields, OF_PREFIXES)
    length = fields.get("prefix_length")
    if not isinstance(length, int) or length < 1:
        raise ConfigError(f"'prefix_length' must be an int above 0, got {length!r}.")
    return Prefix(
        length=length,
        activation=None if fields.get("flat", False) else _activation(fields, is_old=False),
        left_out=_left_out(fields),
        dropout=float(fields.get("dropout", 0.0)),
    )


def _check(fields: Mapping[str, Any], required: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (default, needed) in required.items():
        value = fields.get(name, default)
        if value != needed:
            raise ConfigError(
                f"'{name}' must be {needed!r} for an adapter to have an equal here, got {value!r}."
            )
    unknown = {name: value for name, value in fields.items() if value and name not in READ | INERT}
    unknown = {name: value for name, value in unknown.items() if name not in required}
    if unknown:
        raise ConfigError(
            f"{unknown} is not known to this version of peft_autoconfig, which therefore cannot "
            "promise equal outputs."
        )


def _activation(fields: Mapping[str, Any], *, is_old: bool) -> str:
    written = fields.get("non_linearity")
    name = str(written).lower()
    if is_old:
        name = OLD_ACTIVATIONS.get(name, name)
    name = ACTIVATIONS.get(name, name)
    if name not in ACT2FN:
        raise ConfigError(f"'non_linearity' must be one of {sorted(ACT2FN)}, got {written!r}.")
    return name


def _scale(value: object) -> float | None:
    if value in ("learned", "channel"):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(f"'scaling' must be a number, 'learned' or 'channel', got {value!r}.")


def _left_out(fields: Mapping[str, Any]) -> frozenset[int]:
    layers = fields.get("leave_out") or []
    if not isinstance(layers, list) or not all(isinstance(layer, int) for layer in layers):
        raise ConfigError(f"'leave_out' must be a list of indices of layers, got {layers!r}.")
    return frozenset(layers)
