"""What the fields of a configuration may hold: checked when it is made, before a model is loaded.

Imports `errors`; imported by `config`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers.activations import ACT2FN

from ..errors import ConfigError

__all__ = [
    "Layers",
    "check_activation",
    "check_init_weights",
    "check_layers",
    "check_lora_modules",
    "check_modules",
    "check_number",
    "check_size",
    "per_layer",
]

# Indices shared by all parts, or for each named part; None means every layer.
Layers = list[int] | dict[str, list[int]] | None

LORA_PLACES = ("attention", "feed_forward", "all")


def check_size(value: Any, name: str) -> int | list[int]:
    """Returns a size shared by the layers or the list of one per layer."""
    if _is_count(value):
        return int(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_count, value)):
        if value:
            return [int(v) for v in value]
    raise ConfigError(
        f"{name} must be an int >= 0 or a list with one such int per layer, got {value!r}."
    )


def check_layers(value: Any, parts: Iterable[str]) -> Layers:
    """Returns sorted layer indices, shared or by part; the parts are named in ``parts``."""
    if not isinstance(value, Mapping):
        return _indices(value, "layers_to_transform")
    unknown = sorted(set(value) - set(parts))
    if unknown or not value:
        raise ConfigError(
            f"layers_to_transform as a dict must have keys among {sorted(parts)}, "
            f"got {sorted(value)}."
        )
    chosen = {
        part: _indices(layers, f"layers_to_transform[{part!r}]") for part, layers in value.items()
    }
    return {part: layers for part, layers in chosen.items() if layers is not None} or None


def per_layer(size: int | list[int], name: str, num_layers: int) -> list[int]:
    """Returns the size in each of ``num_layers`` layers."""
    if isinstance(size, int):
        return [size] * num_layers
    if len(size) != num_layers:
        raise ConfigError(
            f"{name} must be one int or a list of {num_layers}, one per layer of the model, "
            f"got {len(size)}: {size}."
        )
    return size


def check_activation(value: Any) -> None:
    """Checks the name of an activation that transformers knows."""
    if value not in ACT2FN:
        raise ConfigError(f"activation must be one of {sorted(ACT2FN)}, got {value!r}.")


def check_init_weights(value: Any) -> None:
    """Checks for True, False or "paper"."""
    if value != "paper" and not isinstance(value, bool):
        raise ConfigError(f"init_weights must be True, False or 'paper', got {value!r}.")


def check_number(value: Any, name: str, *, above: float, below: float = float("inf")) -> None:
    """Checks a number strictly between two bounds; ``above`` itself is allowed when it is 0 and
    ``below`` is 1, that is for a probability."""
    lowest_is_allowed = below == 1
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (above < value < below or (lowest_is_allowed and value == above))
    )
    if not fits:
        bounds = f"in [{above}, {below})" if lowest_is_allowed else f"above {above}"
        raise ConfigError(f"{name} must be a number {bounds}, got {value!r}.")


def check_modules(value: Any, name: str) -> str | set[str] | None:
    """Returns a pattern, a set of module names, or None, as PEFT's `target_modules`."""
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, Sequence | set) and value and all(isinstance(v, str) for v in value):
        return set(value)
    raise ConfigError(
        f"{name} must be None, a regular expression or a list of module names, got {value!r}."
    )


def check_lora_modules(value: Any) -> str | list[str]:
    """Returns one of the places of low-rank updates, or a sorted list of module names."""
    if isinstance(value, str) and value in LORA_PLACES:
        return value
    if isinstance(value, Sequence | set) and not isinstance(value, str):
        if value and all(isinstance(v, str) for v in value):
            return sorted(value)
    raise ConfigError(
        f"lora_modules must be one of {LORA_PLACES} or a list of module names such as "
        f"['query', 'value'], got {value!r}."
    )


def _indices(value: Any, name: str) -> list[int] | None:
    if value is None:
        return None
    layers = [value] if isinstance(value, int) else value
    if (
        not isinstance(layers, Sequence | set | range)
        or isinstance(layers, str)
        or not all(map(_is_count, layers))
        or len(set(layers)) != len(layers)
    ):
        raise ConfigError(f"{name} must be None, an index or distinct indices >= 0, got {value!r}.")
    if not layers:
        raise ConfigError(
            f"{name} is empty: everything is off. Name at least one layer, or None for all of them."
        )
    return sorted(int(layer) for layer in layers)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
