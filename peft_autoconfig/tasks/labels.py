"""From a label column to class ids or real values, and every complaint about labels.

The training set fixes the classes; any other split must use them. Text that spells numbers (all
that a CSV file can hold) is read as numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError
from .table import Table

__all__ = ["Labels", "are_values"]


@dataclass(frozen=True)
class Labels:
    """How the labels of one task are read.

    Attributes:
        column: Name of the label column.
        names: Class names in the order of ids; empty in a regression.
        values: The value in the column behind each id; empty in a regression.
    """

    column: str
    names: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls,
        table: Table,
        column: str,
        *,
        is_value: bool = False,
        names: Sequence[str] = (),
    ) -> "Labels":
        """Returns how to read a column, as its training table shows it.

        Args:
            table: The training table.
            column: The label column.
            is_value: Whether labels are real values rather than classes.
            names: Class names in the order of ids; without any, those that the table knows, else
                the values that occur, sorted.

        Raises:
            TaskError: If labels are missing or of mixed types, or there are fewer than two classes.
        """
        values = _parsed(table, column)
        known = names or table.class_names.get(column)
        _check_names(table, column, known)
        if is_value:
            if not isinstance(values[0], int | float) or isinstance(values[0], bool):
                raise TaskError(f"{table.source}: a regression needs numbers, got {values[0]!r}")
            return cls(column)
        ordered = tuple(known or sorted(set(values)))
        if known and not isinstance(values[0], str):
            ordered = tuple(range(len(known)))
        _check_classes(table, column, values, ordered)
        return cls(column, tuple(str(name) for name in known or ordered), ordered)

    def encode(self, table: Table) -> tuple[int, ...] | tuple[float, ...]:
        """Returns the class ids or real values of a table.

        Raises:
            TaskError: If a label is missing, no number, or of no class of the training set.
        """
        values = _parsed(table, self.column)
        if not self.names:
            return tuple(_number(value, row, table) for row, value in enumerate(values))
        _check_names(table, self.column, self.names)
        ids = {value: index for index, value in enumerate(self.values)}
        for row, value in enumerate(values):
            if value not in ids:
                raise TaskError(
                    f"{table.source}, example {row}: label {value!r} is none of the classes "
                    f"{list(self.values)} of the training set"
                )
        return tuple(ids[value] for value in values)


def are_values(table: Table, column: str) -> bool:
    """Returns whether a column holds real values: numbers of which some have a fraction.

    Raises:
        TaskError: If labels are missing or of mixed types.
    """
    return isinstance(_parsed(table, column)[0], float)


def _parsed(table: Table, column: str) -> list[Any]:
    """The labels, of one type: all int, all float or all str."""
    values = table.column(column)
    if not values:
        raise TaskError(f"{table.source} has no rows, expected at least one example")
    for row, value in enumerate(values):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise TaskError(f"{table.source}, example {row}: column {column!r} has no label")
    if all(isinstance(value, str) for value in values):
        return _spelled_numbers(values)
    if all(isinstance(value, bool) for value in values):
        return [str(value) for value in values]
    if not all(isinstance(value, int | float) for value in values):
        kinds = sorted({type(value).__name__ for value in values})
        raise TaskError(f"{table.source}: column {column!r} mixes labels of types {kinds}")
    is_whole = all(isinstance(value, int) for value in values)
    return values if is_whole else [float(value) for value in values]


def _spelled_numbers(values: list[str]) -> list[Any]:
    for number in (int, float):
        try:
            return [number(value) for value in values]
        except ValueError:
            continue
    return values


def _number(value: Any, row: int, table: Table) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TaskError(f"{table.source}, example {row}: expected a finite number, got {value!r}")
    return float(value)


def _check_names(table: Table, column: str, names: Sequence[str] | None) -> None:
    own = table.class_names.get(column)
    if own and names and tuple(names) != own:
        raise TaskError(
            f"{table.source}: column {column!r} has the classes {list(own)}, expected {list(names)}"
        )


def _check_classes(table: Table, column: str, values: list[Any], classes: tuple[Any, ...]) -> None:
    occurring = set(values)
    if -1 in occurring:
        raise TaskError(
            f"{table.source}: column {column!r} holds -1, the mark of withheld labels; use a "
            "labelled split"
        )
    if occurring - set(classes):
        raise TaskError(
            f"{table.source}: labels {sorted(occurring - set(classes))[:5]} are none of the "
            f"classes {list(classes)}"
        )
    if len(occurring) < 2:
        raise TaskError(
            f"{table.source}: expected at least two classes in column {column!r}, got "
            f"{sorted(occurring)}"
        )
    if len(occurring) * 2 > len(values) and len(occurring) > 20:
        raise TaskError(
            f"{table.source}: column {column!r} has {len(occurring)} values in {len(values)} "
            "examples, too many for classes; say another kind (regression, completion, ...) or "
            "name another column"
        )
