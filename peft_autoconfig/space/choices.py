"""What a person gives to make a search space, checked: sizes, rates, names.

Each check returns its value in the form in which the space keeps it, or raises a `ConfigError` that
names the attribute. Imports `errors` and `tuner`; imported by `space`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError
from ..tuner.fields import check_lora_modules

__all__ = ["check_attributes", "check_names", "check_positive"]

Number = TypeVar("Number", int, float)


def check_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes of a `SearchSpace` in the form in which it keeps them."""
    kept: dict[str, Any] = {
        name: check_sizes(name, given[name])
        for name in ("serial_bottleneck_sizes", "parallel_bottleneck_sizes", "prefix_lengths")
    }
    for name in ("num_layers", "hidden_size"):
        kept[name] = check_positive(name, given[name])
    if given["learning_rates"] is not None:
        kept["learning_rates"] = check_rates("learning_rates", given["learning_rates"])
    kept["key_value_size"] = kept["hidden_size"]
    for name in ("key_value_size", "max_params"):
        if given[name] is not None:
            kept[name] = check_positive(name, given[name])
    names = ("lora_ranks", "low_rank_size", "lora_modules")
    return kept | check_low_rank(*(given[name] for name in names))


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


def check_low_rank(ranks: Any, size: Any, modules: Any) -> dict[str, Any]:
    """Returns ``lora_ranks``, ``low_rank_size`` and ``lora_modules`` of a space that has them all.

    Without ranks the others must be left out too.
    """
    kept = check_lora_modules(modules)
    if ranks is None:
        if size is not None or kept != "all":
            raise ConfigError(
                f"expected lora_ranks beside low_rank_size={size!r} and lora_modules={modules!r}, "
                "got None; give ranks, [0, 4, 8, 16] say, or leave the others out too"
            )
        return {}
    if size is None:
        raise ConfigError(
            "expected low_rank_size beside lora_ranks: inputs and outputs of one layer's updated "
            "modules, summed; SearchSpace.from_model reads it"
        )
    return {
        "lora_ranks": check_sizes("lora_ranks", ranks),
        "low_rank_size": check_positive("low_rank_size", size),
        "lora_modules": tuple(kept) if isinstance(kept, list) else kept,
    }


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
