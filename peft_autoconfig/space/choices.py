"""What a person gives to make a search space, read and checked: sizes, rates, a model.

Each check returns its value in the form in which the space keeps it, or raises a `ConfigError` that
names the attribute. Imports `errors`; imported by `space`.
"""

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError

__all__ = ["check_names", "check_positive", "check_rates", "check_sizes", "read_model"]

Number = TypeVar("Number", int, float)


def check_positive(name: str, value: Any) -> int:
    """Returns a whole number of at least 1."""
    if not _is_whole(value) or index(value) < 1:
        raise ConfigError(f"expected {name} to be a whole number of at least 1, got {value!r}")
    return index(value)


def check_sizes(name: str, values: Any) -> tuple[int, ...]:
    """Returns sizes of at least 0, ascending; at least one, none twice."""
    for value in _check_list(name, values, "[0] means absent"):
        if not _is_whole(value) or index(value) < 0:
            raise ConfigError(
                f"expected whole numbers of at least 0 in {name} (0 means absent), got {value!r}"
            )
    return _distinct(name, tuple(sorted(index(value) for value in values)))


def check_rates(name: str, values: Any) -> tuple[float, ...]:
    """Returns finite numbers above 0, ascending; at least one, none twice."""
    for value in _check_list(name, values, "None means that it does not vary"):
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            raise ConfigError(f"expected finite numbers above 0 in {name}, got {value!r}")
    return _distinct(name, tuple(sorted(float(value) for value in values)))


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ConfigError if a name is given that is not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"expected names among {sorted(known)} for {what}, got {unknown}")


def read_model(model_or_config: Any, *, given: set[str]) -> dict[str, int]:
    """Returns num_layers, hidden_size and, with heads, key_value_size of a Transformers model.

    Nothing but attributes is read, so the config alone will do and no weights are needed.

    Args:
        model_or_config: A model or its config.
        given: Names that need not be found.

    Raises:
        ConfigError: If the config does not tell its layers or its width.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    width = getattr(config, "hidden_size", None)
    found = {"num_layers": getattr(config, "num_hidden_layers", None), "hidden_size": width}
    missing = [name for name, value in found.items() if value is None and name not in given]
    if missing:
        raise ConfigError(
            f"expected a Transformers model or config that tells its {' and '.join(missing)}, got "
            f"{type(model_or_config).__name__}; pass {', '.join(f'{n}=...' for n in missing)}"
        )
    heads = getattr(config, "num_attention_heads", None)
    if heads and width:
        key_value_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or width // heads
        found["key_value_size"] = key_value_heads * head_dim
    return {name: value for name, value in found.items() if value is not None}


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _check_list(name: str, values: Any, advice: str) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ConfigError(f"expected {name} to be a list of numbers, got {values!r}")
    if len(values) == 0:
        raise ConfigError(f"expected at least one value in {name}, got none; {advice}")
    return list(values)


def _distinct(name: str, values: tuple[Number, ...]) -> tuple[Number, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ConfigError(f"expected different values in {name}, got {twice} more than once")
    return values
