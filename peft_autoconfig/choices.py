"""The checks of what a person lists as choices of a search space: sizes, rates, whole numbers.

Each function returns the checked value in the form in which the space keeps it, or raises a
`ConfigError` that names the attribute. Imports `errors`; imported by `space`.
"""

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, TypeVar

import numpy as np

from .errors import ConfigError

__all__ = ["check_names", "check_positive", "check_rates", "check_sizes"]

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
