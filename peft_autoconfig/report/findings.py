"""What a report tells of, read from a run folder without changing anything in it.

The search may still be going and its files may be damaged or hostile. The front comes from
`front.json`, since that is what `AutoPEFTConfig.from_search` chooses from; all else from the study,
which is only read.

Imports `errors`, `run`, `search`, `space` and `tuner`; imported by the rest of `report`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial

from ..run.folder import RunFolder, choose, read_front
from ..run.json_file import damaged, read_json
from ..search.trial import TrialRecord, record_of
from ..space import SearchSpace
from ..tuner.config import LayerSizes
from .repeats import Repeat, read_repeats
from .study import read_trials

__all__ = ["Findings", "Placed", "Trial", "placed_parts", "read_findings"]

# layer index -> part -> size; what is absent is left out
Placed = dict[int, dict[str, int]]


@dataclass(frozen=True)
class Trial:
    """One trial with its times.

    Attributes:
        record: What the search knows of it.
        started: When a worker took it up; None if none has yet.
        ended: When it was finished; None if it is not.
    """

    record: TrialRecord
    started: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class Findings:
    """All that is known of one run.

    Attributes:
        run: The run folder, as the caller wrote it.
        folder: Its names on disk.
        space: The search space.
        about: The facts that the search was opened with.
        seed: Seed of the proposals.
        recipe: What the command line was started with, by the names of its flags; empty if the
            run was not started by it.
        trials: All trials by number.
        front: The complete trials of the front, fewest parameters first.
        repeats: The methods that were trained again over new seeds, fewest parameters first.
    """

    run: str
    folder: RunFolder
    space: SearchSpace
    about: dict[str, Any]
    seed: int
    recipe: dict[str, Any]
    trials: tuple[Trial, ...]
    front: tuple[TrialRecord, ...]
    repeats: tuple[Repeat, ...]

    def records(self, state: str) -> list[TrialRecord]:
        """Returns the records in a state, by number."""
        return [trial.record for trial in self.trials if trial.record.state == state]

    @cached_property
    def complete(self) -> list[TrialRecord]:
        """The complete records, by number; each has a configuration, a score and a count."""
        return [r for r in self.records("COMPLETE") if r.config is not None]

    @property
    def stopped(self) -> list[TrialRecord]:
        """The records that were stopped at a rung, by number."""
        return [record for record in self.records("PRUNED") if record.is_stopped]

    @property
    def refused(self) -> list[TrialRecord]:
        """The records that failed or were refused: the failed first, each kind by number."""
        pruned = [record for record in self.records("PRUNED") if not record.is_stopped]
        return self.records("FAIL") + pruned

    @cached_property
    def dominated(self) -> list[TrialRecord]:
        """The complete records that are not on the front."""
        members = {member.number for member in self.front}
        return [record for record in self.complete if record.number not in members]

    @cached_property
    def parts(self) -> list[str]:
        """The parts that any complete trial uses, in the order of `LayerSizes`."""
        used = [
            part
            for record in self.complete
            if record.config is not None
            for sizes in record.config.layer_sizes(self.space.num_layers)
            for part, size in sizes._asdict().items()
            if size
        ]
        order = list(LayerSizes._fields)
        return sorted(set(used), key=order.index)

    @property
    def metric(self) -> str:
        """Name of the score."""
        return str(_entry(self.about, "task").get("metric", "score"))

    @property
    def task(self) -> str | None:
        """Name of the task, if the search was told."""
        name = _entry(self.about, "task").get("name")
        return None if name is None else str(name)

    @property
    def model(self) -> str | None:
        """Name or folder of the base model, if the search was told."""
        name = self.about.get("model")
        return None if name is None else str(name)

    @property
    def num_base_params(self) -> int | None:
        """Parameters of the base model, if the search was told."""
        count = self.about.get("num_base_params")
        return count if isinstance(count, int) and count > 0 else None

    @cached_property
    def knee(self) -> TrialRecord | None:
        """The member where more parameters stop paying, as `from_search(select="knee")` takes it.

        None if there is no front."""
        if not self.front:
            return None
        members = [{"mean": m.mean, "num_params": m.num_params} for m in self.front]
        return self.front[members.index(choose(members, select="knee"))]

    def repeat_of(self, record: TrialRecord) -> Repeat | None:
        """Returns the repeated trainings of a trial, if there are any."""
        return next((r for r in self.repeats if r.trial == record.number), None)


def read_findings(run: str | os.PathLike[str]) -> Findings:
    """Returns what is known of the run in a folder.

    Raises:
        RunError: It is no run folder, or a file in it is damaged.
        ConfigError: Its search space is none.
    """
    folder = RunFolder.at(run)
    identity = folder.identity()
    space = SearchSpace.from_dict(identity["space"])
    # The front before the trials: a search that goes on only adds to them.
    members = read_front(run) if folder.front_file.exists() else []
    trials = tuple(_trial(trial, space) for trial in read_trials(folder))
    front = tuple(_record(member, trials, folder) for member in members)
    complete = [t.record for t in trials if t.record.state == "COMPLETE" and t.record.config]
    file = folder.path / "comparison.json"
    return Findings(
        run=os.fspath(run),
        folder=folder,
        space=space,
        about=identity["about"],
        seed=int(identity.get("seed") or 0),
        recipe=_recipe(folder),
        trials=trials,
        front=front,
        repeats=read_repeats(file, complete) if file.exists() else (),
    )


def placed_parts(record: TrialRecord, num_layers: int) -> Placed:
    """Returns which parts a configuration puts into which layers, and at what size."""
    if record.config is None:
        return {}
    return {
        layer: {part: size for part, size in sizes._asdict().items() if size}
        for layer, sizes in enumerate(record.config.layer_sizes(num_layers))
        if any(sizes)
    }


def _recipe(folder: RunFolder) -> dict[str, Any]:
    file = folder.path / "recipe.json"
    recipe = read_json(file) if file.exists() else {}
    if not isinstance(recipe, dict):
        raise damaged(file, "it must hold names with values")
    return recipe


def _trial(trial: FrozenTrial, space: SearchSpace) -> Trial:
    return Trial(record_of(trial, space), trial.datetime_start, trial.datetime_complete)


def _record(member: dict[str, Any], trials: Sequence[Trial], folder: RunFolder) -> TrialRecord:
    number: int = member["trial"]
    record = trials[number].record if number < len(trials) else None
    if record is None or record.state != "COMPLETE" or record.config is None:
        raise damaged(folder.front_file, f"trial {number} is not complete in the study")
    return replace(
        record,
        mean=record.score if member.get("mean") is None else member["mean"],  # earlier versions
        deviation=member.get("deviation"),
        confidence=member.get("confidence"),
    )


def _entry(about: dict[str, Any], name: str) -> dict[str, Any]:
    value = about.get(name)
    return value if isinstance(value, dict) else {}
