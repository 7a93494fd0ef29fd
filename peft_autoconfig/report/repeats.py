"""The trainings over new seeds, read from ``comparison.json`` with suspicion.

Each method that was trained again, a member of the front or a baseline, becomes one `Repeat`. The
file is written by `front`, which trains models and is not needed to read results.

Imports `errors` (through `run`), `run` and `search`; imported by `findings`.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..run.json_file import damaged, read_json
from ..search.trial import TrialRecord

__all__ = ["Repeat", "Scores", "pooled_deviation", "read_repeats"]

SEARCHED = "AUTOPEFT"
_SIZES = ("_bottleneck_size", "_length", "_rank")
# How PEFT types are called in print, and the field that says their size.
NAMES = {
    "AUTOPEFT_SERIAL": ("serial", "bottleneck_size"),
    "AUTOPEFT_PARALLEL": ("parallel", "bottleneck_size"),
    "AUTOPEFT_PREFIX": ("prefix", "prefix_length"),
    "LORA": ("LoRA r =", "r"),
}


@dataclass(frozen=True)
class Scores:
    """The scores of one method on one split, one for each seed; at least one."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None of a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Repeat:
    """One method, trained again with seeds that the search did not use.

    Attributes:
        name: What it is called.
        trial: Number of the trial whose configuration it is; None for a baseline.
        num_params: Trained parameters, the task head left out; 0 for a linear probe.
        learning_rate: Peak rate.
        dev: Scores on the split that the search sees.
        test: Scores on the split that it does not see.
        seconds: Of all its trainings together.
    """

    name: str
    trial: int | None
    num_params: int
    learning_rate: float
    dev: Scores
    test: Scores
    seconds: float


def read_repeats(file: Path, records: Sequence[TrialRecord]) -> tuple[Repeat, ...]:
    """Returns the methods of a comparison, fewest parameters first.

    Args:
        file: ``comparison.json`` of the run.
        records: The complete trials, to which configurations are traced back.

    Raises:
        RunError: The file is damaged.
    """
    stored = read_json(file)
    entries = stored.get("evaluations") if isinstance(stored, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise damaged(file, "it is no list of evaluations")
    # Those without a test score only chose a learning rate, by the search's own seed.
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry in entries:
        _check(file, entry)
        if entry["test"] is not None:
            groups.setdefault((entry["method"], entry["learning_rate"]), []).append(entry)
    repeats = [_repeat(*key, group, records) for key, group in groups.items()]
    return tuple(sorted(repeats, key=lambda r: (r.num_params, r.test.mean)))


def pooled_deviation(scores: Sequence[Scores]) -> float | None:
    """Returns the standard deviation over seeds, pooled over methods; None without repeats."""
    repeated = [s for s in scores if s.deviation is not None]
    freedom = sum(len(s.values) - 1 for s in repeated)
    if not freedom:
        return None
    squares = sum((s.deviation or 0.0) ** 2 * (len(s.values) - 1) for s in repeated)
    return math.sqrt(squares / freedom)


def _repeat(
    method: str, rate: float, group: Sequence[Mapping[str, Any]], records: Sequence[TrialRecord]
) -> Repeat:
    trial = _trial(method, rate, records)
    return Repeat(
        name=_name(method) if trial is None else f"trial {trial}",
        trial=trial,
        num_params=group[0]["num_params"],
        learning_rate=rate,
        dev=Scores(tuple(entry["dev"] for entry in group)),
        test=Scores(tuple(entry["test"] for entry in group)),
        seconds=sum(entry["seconds"] for entry in group),
    )


def _trial(method: str, rate: float, records: Sequence[TrialRecord]) -> int | None:
    """Returns the trial with this configuration and rate; of several, which fail, the first."""
    fields = _fields(method)
    if fields.get("peft_type") != SEARCHED:
        return None
    for record in records:
        wanted = record.config.to_dict() if record.config else {}
        # Fields that say how it was saved may differ, sizes and layers may not. A size that an
        # older version did not know is 0 there.
        same = all(fields.get(k, 0) == v for k, v in wanted.items() if k.endswith(_SIZES))
        same &= fields.get("layers_to_transform") == wanted.get("layers_to_transform")
        if same and record.learning_rate in (None, rate):
            return record.number
    return None


def _name(method: str) -> str:
    fields = _fields(method)
    kind = fields.get("peft_type")
    if not isinstance(kind, str):
        return method
    name, size = NAMES.get(kind, (kind.lower().replace("_", " "), ""))
    return f"{name} {fields[size]}" if size in fields else name


def _fields(method: str) -> dict[str, Any]:
    """Returns the fields of a PEFT configuration; none for a method that is only named."""
    try:
        fields = json.loads(method)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _check(file: Path, entry: dict[str, Any]) -> None:
    numbers = {"learning_rate", "num_params", "dev", "seconds", "test"}
    good = isinstance(entry.get("method"), str) and all(
        _is_number(entry.get(name)) or (name == "test" and entry.get(name) is None)
        for name in numbers
    )
    if not good:
        raise damaged(file, "an evaluation in it lacks its method, counts or scores")


def _is_number(value: Any) -> bool:
    # also of an int that is too large for a float
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )
