"""What is known of one trial, what may be its result, and which trials are the best.

A `TrialRecord` is the plain value that a search shows for an Optuna trial. The front is taken over
configurations, each at its best learning rate: of two records, one is better that scores no less
with no more parameters, and differs.

Imports `errors`, `outcome`, `run`, `rungs`, `space` and `tuner`; imported by `search` and `pilot`.
"""

import json
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from ..errors import ConfigError
from ..outcome import Outcome
from ..run.folder import CONFIG_FIELDS
from ..space import SearchSpace
from ..tuner.config import AutoPEFTConfig
from .rungs import Rung, rungs_of

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Records",
    "TrialRecord",
    "checked_outcome",
    "facts_of",
    "front_member",
    "non_dominated",
    "record_of",
    "table_row",
    "trials_table",
]


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        number: Its number in the study, from 0.
        state: "WAITING", "RUNNING", "COMPLETE", "FAIL", or "PRUNED": stopped at a rung, or, without
            rungs, drawn outside the space.
        config: The configuration; None if its worker died before it was known.
        learning_rate: The learning rate; None if the space has none.
        score: The objective's score, higher is better; None unless complete.
        num_params: Exact parameter count of the configuration; None unless complete.
        loss: The smooth companion of the score, lower is better; None if unknown.
        seconds: Wall-clock seconds of the evaluation; None if it never ended.
        reason: Why it failed, was stopped or refused; None otherwise.
        worker: Host and process id of who works or worked on it; None if nobody did.
        started: When it was handed out, in local time; None if it was not.
        rungs: How it stood on its way, as far as its objective told.
        mean: What the score is believed to be without noise; None unless on the front. This and the
            next two are as in `sampler.BelievedTrial`.
        deviation: How far that may be off, as a standard deviation; None unless on the front.
        confidence: Probability that it truly is better than the member before it; None unless on
            the front.
    """

    number: int
    state: str
    config: AutoPEFTConfig | None = None
    learning_rate: float | None = None
    score: float | None = None
    num_params: int | None = None
    loss: float | None = None
    seconds: float | None = None
    reason: str | None = None
    worker: str | None = None
    started: datetime | None = None
    rungs: tuple[Rung, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    confidence: float | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped at a rung, so that it is done without a score."""
        return self.state == "PRUNED" and bool(self.rungs)


def record_of(trial: FrozenTrial, space: SearchSpace) -> TrialRecord:
    """Returns the record of an Optuna trial of a search over ``space``."""
    attributes = trial.user_attrs
    params, owner = attributes.get("params") or trial.params, attributes.get("owner")
    score, num_params = trial.values or (None, None)
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        config=_config(params, space),
        learning_rate=params.get("learning_rate"),
        score=score,
        num_params=None if num_params is None else int(num_params),
        loss=attributes.get("loss"),
        seconds=attributes.get("seconds"),
        reason=attributes.get("reason"),
        worker=None if owner is None else f"{owner['host']}:{owner['pid']}",
        started=None if owner is None else trial.datetime_start,
        rungs=rungs_of(trial),
    )


class Records:
    """The records of a search's trials; those that are finished are made once.

    Args:
        space: The search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._finished: dict[int, TrialRecord] = {}

    def of(self, trial: FrozenTrial) -> TrialRecord:
        """Returns the record of an Optuna trial."""
        record = self._finished.get(trial.number)
        if record is None:
            record = record_of(trial, self._space)
            if trial.state.is_finished():  # for good
                self._finished[trial.number] = record
        return record


def checked_outcome(result: Any) -> Outcome:
    """Returns what an objective returned as an `Outcome` with a finite score.

    Raises:
        ValueError: It is no such thing.
    """
    outcome = result if isinstance(result, Outcome) else Outcome(score=result)
    if not isinstance(outcome.score, numbers.Real) or isinstance(outcome.score, bool):
        raise ValueError(
            f"expected a float or an Outcome from the objective, got {type(outcome.score).__name__}"
        )
    if not math.isfinite(outcome.score):
        raise ValueError(f"expected a finite score from the objective, got {outcome.score}")
    return Outcome(float(outcome.score), outcome.loss, outcome.seconds, outcome.details)


def facts_of(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Returns what of an outcome is stored beside the values."""
    facts: dict[str, Any] = {"seconds": float(outcome.seconds or seconds)}
    # A diverged training may still have a score, so its loss alone is left out.
    if outcome.loss is not None and math.isfinite(outcome.loss):
        facts["loss"] = float(outcome.loss)
    if outcome.details:
        facts["details"] = json.loads(json.dumps(outcome.details, default=str))
    return facts


def non_dominated(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Returns the complete records that no other has a higher score than, fewest parameters first.

    What noise has lifted is among them; the front of a search is by what is believed
    (`Search.front`). Of equals in both score and parameters the one with the lower loss stays,
    then the earlier one.
    """
    complete = [record for record in records if record.state == "COMPLETE"]
    front: list[TrialRecord] = []
    best = -math.inf
    for record in sorted(complete, key=_cheapest_and_best_first):
        assert record.score is not None
        # Whatever came before is no dearer, so only a higher score adds to the front.
        if record.score > best:
            front.append(record)
            best = record.score
    return front


def front_member(record: TrialRecord, num_base_params: int | None) -> dict[str, Any]:
    """Returns a complete record as ``front.json`` holds it.

    Args:
        record: A complete record.
        num_base_params: Parameters of the base model; adds ``fraction``, their ratio, if known.
    """
    assert record.num_params is not None
    member: dict[str, Any] = {
        "trial": record.number,
        "config": {name: getattr(record.config, name) for name in CONFIG_FIELDS},
        "learning_rate": record.learning_rate,
        "score": record.score,
        "mean": record.mean,
        "deviation": record.deviation,
        "confidence": record.confidence,
        "loss": record.loss,
        "num_params": record.num_params,
    }
    if num_base_params:
        member["fraction"] = record.num_params / num_base_params
    return member


def table_row(record: TrialRecord, is_on_front: bool) -> dict[str, Any]:
    """Returns a record as one level of names and values: the result, then the configuration.

    Args:
        record: Any record.
        is_on_front: Whether it is a member of the front.
    """
    row = {field.name: getattr(record, field.name) for field in fields(record)}
    config = row.pop("config")
    del row["rungs"]  # the one value that is no cell
    return row | {"on_front": is_on_front} | {n: getattr(config, n, None) for n in CONFIG_FIELDS}


def trials_table(
    records: Sequence[TrialRecord], front: Sequence[TrialRecord]
) -> "pandas.DataFrame":
    """Returns records as a table, a row for each by number; see `Search.to_pandas`."""
    # Late, since only this one needs it.
    import pandas

    members = {record.number: record for record in front}
    rows = [table_row(members.get(r.number, r), r.number in members) for r in records]
    names = list(table_row(TrialRecord(0, ""), False))
    return pandas.DataFrame(rows, columns=names).set_index("number")


def _config(params: dict[str, Any], space: SearchSpace) -> AutoPEFTConfig | None:
    try:
        return space.config(params)
    except ConfigError:  # not all of it was drawn, or the draw was refused as invalid
        return None


def _cheapest_and_best_first(record: TrialRecord) -> tuple[float, ...]:
    assert record.score is not None
    assert record.num_params is not None
    loss = math.inf if record.loss is None else record.loss
    return (record.num_params, -record.score, loss, record.number)
