"""Columns of rows as they come from a file or the Hub, before anything is known of a task.

Values keep the type that the file gave them; CSV has only text, so numbers are recognised later,
where it is known which column is a label. Reading needs no cache folder and shows no progress.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import TaskError

__all__ = ["FORMATS", "Table", "read_table"]

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        source: File or Hub name, for messages.
        columns: Values by column name.
        class_names: Names behind class ids, where the source carries them.
    """

    source: str
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[Any]:
        """Returns a column.

        Raises:
            TaskError: If there is none of that name.
        """
        if name not in self.columns:
            raise TaskError(
                f"{self.source} has no column {name!r}; its columns are {sorted(self.columns)}"
            )
        return self.columns[name]


def read_table(*paths: Path) -> Table:
    """Returns the rows of one file, or of several parts of one table.

    Args:
        paths: ``.csv``, ``.tsv``, ``.json`` (a list of objects, or an object with such a list under
            ``data``), ``.jsonl`` (an object a line) or ``.parquet`` files.

    Raises:
        TaskError: If a file is missing, of another format, damaged, or has no rows.
    """
    parts = [_read_file(path) for path in paths]
    first = parts[0]
    if any(part.columns.keys() != first.columns.keys() for part in parts):
        raise TaskError(f"the parts of {first.source} have different columns")
    columns = {name: [v for part in parts for v in part.columns[name]] for name in first.columns}
    if not len(Table("", columns)):
        raise TaskError(f"{first.source} has no rows, expected at least one example")
    return Table(first.source, columns, first.class_names)


def from_dataset(dataset: datasets.Dataset, source: str) -> Table:
    """Returns the columns of a `datasets.Dataset`, with the class names that it knows."""
    return Table(source, dataset.to_dict(), _class_names(dataset.features))


def _class_names(features: datasets.Features) -> dict[str, tuple[str, ...]]:
    # of a list of classes, those of its entries
    kinds = [(key, getattr(kind, "feature", kind)) for key, kind in features.items()]
    return {key: tuple(kind.names) for key, kind in kinds if isinstance(kind, datasets.ClassLabel)}


def _read_file(path: Path) -> Table:
    if not path.is_file():
        raise TaskError(f"there is no file {path}; check the path")
    if path.suffix not in FORMATS:
        raise TaskError(f"{path}: expected a file ending in one of {list(FORMATS)}")
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        if path.suffix in (".csv", ".tsv"):
            return Table(str(path), _read_csv(path))
        return Table(str(path), _columns(_read_json(path), str(path)))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, pa.ArrowException) as e:
        raise TaskError(f"{path} cannot be read as {path.suffix[1:]}: {e}") from e


def _read_parquet(path: Path) -> Table:
    table = pq.read_table(path)
    features = datasets.Features.from_arrow_schema(table.schema)
    return Table(str(path), table.to_pydict(), _class_names(features))


def _read_csv(path: Path) -> dict[str, list[Any]]:
    """Columns of text; the first line names them, a byte-order mark is skipped."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
        names = next(rows, [])
        columns: dict[str, list[Any]] = {name: [] for name in names}
        if len(columns) < len(names):
            raise TaskError(f"{path} names a column twice: {names}")
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise TaskError(
                    f"{path}, line {rows.line_num}: expected {len(names)} fields ({names}), got "
                    f"{len(row)}; put texts that contain the separator in double quotes"
                )
            for name, value in zip(names, row, strict=True):
                columns[name].append(value)
    return columns


def _read_json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl" or _is_lines(text):
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    content = json.loads(text)
    if isinstance(content, dict):
        content = content.get("data")
    if not isinstance(content, list):
        raise TaskError(f"{path}: expected a list of objects, or one under the key 'data'")
    return content


def _is_lines(text: str) -> bool:
    """Whether the first line alone is a whole object and another follows: JSON lines."""
    lines = text.strip().split("\n", 1)
    try:
        return len(lines) == 2 and isinstance(json.loads(lines[0]), dict)
    except json.JSONDecodeError:
        return False


def _columns(rows: list[Any], source: str) -> dict[str, list[Any]]:
    """Columns of a list of objects; a key that an object lacks is None there."""
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TaskError(f"{source}, example {number}: expected an object, got {row!r:.60}")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
