"""The run folder of a search: its names on disk, whose search it is, its lock and its winners.

    search.json          format version, space, facts about model and task, seed, what earlier runs
                         had found; written once
    study.db             every trial, an Optuna study; absent where a data base has it
    front.json           the front, replaced as a whole when a score adds to it and at the end
    adapters/<trial>/    PEFT checkpoints of the front
    checkpoints/         what goes on where a training broke off; each goes when its training ends
    .lock                held while trials are handed out or stored

It knows JSON and files, nothing of Optuna, so that choosing a winner costs no heavy import. What it
reads may be damaged or hostile: everything is checked before it is used.

Imports `errors`, `hub`, `identity` and `json_file`; imported by `search`, and late by
`AutoPEFTConfig.from_search`.
"""

import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ConfigError, RunError
from .hub import fetch, is_repository
from .identity import FORMAT, identity_of, read_versioned, refuse_other_search, strange_facts
from .json_file import brief, damaged, partial_path, refuse_link, unusable, write_json

__all__ = ["CONFIG_FIELDS", "FORMAT", "RunFolder", "choose", "read_front", "select_member"]

logger = logging.getLogger(__name__)

# The fields of `AutoPEFTConfig` that a search varies, hence the only ones that a front may set.
CONFIG_FIELDS = (
    "serial_bottleneck_size",
    "parallel_bottleneck_size",
    "prefix_length",
    "lora_rank",
    "lora_modules",
    "layers_to_transform",
)

# Far beyond any model: larger numbers would only fill the memory of whoever builds it.
MAX_SIZE = 2**20

_SECONDS_BETWEEN_LOCK_WARNINGS = 60.0


@dataclass(frozen=True)
class RunFolder:
    """One run folder, which need not exist yet.

    Attributes:
        path: Its absolute path.
    """

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Returns the run folder at ``path``, made absolute; touches nothing on disk."""
        return cls(Path(path).absolute())

    @property
    def identity_file(self) -> Path:
        return self.path / "search.json"

    @property
    def study_file(self) -> Path:
        return self.path / "study.db"

    @property
    def front_file(self) -> Path:
        return self.path / "front.json"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    @property
    def checkpoint_folder(self) -> Path:
        return self.path / "checkpoints"

    def adapter_folder(self, trial: int) -> Path:
        """Returns where the PEFT checkpoint of trial number ``trial`` belongs."""
        return self.path / "adapters" / str(int(trial))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder against all other processes and threads; a dying process lets go.

        Raises:
            RunError: The folder is missing or cannot be written.
        """
        refuse_link(self.lock_file)
        lock = FileLock(self.lock_file)
        while True:
            try:
                lock.acquire(timeout=_SECONDS_BETWEEN_LOCK_WARNINGS)
                break
            except Timeout:
                logger.warning("Another process holds %s; still waiting for it.", self.lock_file)
            except OSError as error:
                raise unusable(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def claim(
        self,
        *,
        space: dict[str, Any],
        about: dict[str, Any],
        seed: int,
        storage: str | None = None,
        earlier: Sequence[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Makes this the folder of one search, or checks that it already is.

        Args:
            space: The search space as JSON-compatible values.
            about: Facts that results depend on: model, task, training.
            seed: Kept for the record; a run may go on under another one.
            storage: Address, without secrets, of the data base that has the trials; None where
                they are in the folder, or where it knows the address.
            earlier: What earlier runs of other tasks had found, each with the name of its ``run``,
                ``points`` and ``scores``; None where there are none, or where the folder has them.

        Returns:
            What `identity` returns from now on.

        Raises:
            RunError: The folder cannot be written, holds other files, or is of another search.
                Nothing in it has been changed then.
        """
        identity = identity_of(
            space=space, about=about, seed=seed, storage=storage, earlier=earlier
        )
        self._create()
        with self.lock():
            self._refuse_foreign_files()
            if not self.identity_file.exists():
                write_json(self.identity_file, identity)
                return identity
            stored = self.identity()
            refuse_other_search(str(self.path), stored, identity)
            return stored

    def identity(self) -> dict[str, Any]:
        """Returns what `claim` stored: ``format``, ``space``, ``about``, ``seed``, and perhaps
        ``storage`` and ``earlier``.

        Raises:
            RunError: There is no such file, it is damaged, or of another format version.
        """
        stored = read_versioned(self.identity_file)
        for key in ("space", "about"):
            if not isinstance(stored.get(key), dict):
                raise damaged(self.identity_file, f"{key!r} must be an object")
        if wrong := strange_facts(stored):
            raise damaged(self.identity_file, wrong)
        return stored

    def write_front(self, members: Sequence[dict[str, Any]]) -> None:
        """Replaces ``front.json``; the caller holds the lock."""
        write_json(self.front_file, {"format": FORMAT, "front": list(members)})

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_files()
        except OSError as error:
            raise unusable(self.path, error) from error

    def _refuse_foreign_files(self) -> None:
        """A folder without our ``search.json`` may only hold what a first start leaves behind."""
        if self.identity_file.exists():
            return
        own = {self.lock_file.name, partial_path(self.identity_file).name}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in own)
        # Between the listing and now another process may have made this a run folder.
        if foreign and not self.identity_file.exists():
            raise RunError(
                f"{self.path} must be an empty, a new or an existing run folder, but it has no "
                f"{self.identity_file.name} and holds {brief(foreign)}; give another folder."
            )


def read_front(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the members of the front of a run folder or Hub repository, fewest parameters first.

    Each holds ``trial``, ``config`` (arguments of `AutoPEFTConfig`), ``learning_rate``, ``score``,
    ``loss`` and ``num_params``, and what is believed of the score: ``mean``, ``deviation`` and
    ``confidence``, as `TrialRecord` has them. Those of earlier versions lack the last three.

    Raises:
        RunError: The run has no front yet, it cannot be reached, or its file is damaged or of
            another version.
    """
    file = RunFolder.at(run).front_file
    if is_repository(run):
        file = fetch(os.fspath(run), file.name)
    members = read_versioned(file).get("front")
    if not isinstance(members, list):
        raise damaged(file, "'front' must be a list")
    for member in members:
        _check_member(file, member)
    return sorted(members, key=lambda member: (member["num_params"], -_worth(member)))


def select_member(
    run: str | os.PathLike[str],
    *,
    max_params: int | None = None,
    select: str = "score",
    trial: int | None = None,
) -> dict[str, Any]:
    """Returns one member of a run's front; see `read_front` and `choose`.

    Args:
        run: A run folder, or a Hub repository.
        max_params: As in `choose`.
        select: As in `choose`.
        trial: Number of the member, which leaves nothing to choose.
    """
    members = read_front(run)
    if not members:
        raise RunError(f"The front in {run} is empty: no trial has finished yet; search on.")
    if trial is not None:
        numbers = {member["trial"]: member for member in members}
        if trial not in numbers:
            raise RunError(
                f"Trial {trial} is not on the front in {run}; its members are trials "
                f"{', '.join(map(str, numbers))}."
            )
        return numbers[trial]
    return choose(members, max_params=max_params, select=select)


def choose(
    members: Sequence[dict[str, Any]], *, max_params: int | None = None, select: str = "score"
) -> dict[str, Any]:
    """Returns the member of a front that fits a budget and a wish; ties go to fewer parameters.

    Args:
        members: At least one member, each with ``num_params`` and ``mean``, or in place of that
            ``score``.
        max_params: Only members with at most so many parameters; None for all.
        select: "score" takes what is believed to score best; "params" the fewest parameters; "knee"
            the member farthest above the line from the smallest to the best one, over the logarithm
            of the parameter count, where more parameters stop paying.

    Raises:
        ConfigError: ``select`` is none of the three.
        RunError: No member meets the budget.
    """
    if select not in ("score", "knee", "params"):
        raise ConfigError(f"select must be 'score', 'knee' or 'params', got {select!r}.")
    fitting = [m for m in members if max_params is None or m["num_params"] <= max_params]
    if not fitting:
        least = min(member["num_params"] for member in members)
        raise RunError(
            f"No member of the front has at most {max_params} parameters; the smallest has "
            f"{least}. Raise max_params, or search on with a space that holds smaller ones."
        )
    fitting.sort(key=lambda member: member["num_params"])
    if select == "params":
        return fitting[0]
    if select == "knee":
        return max(fitting, key=_height_above_chord(fitting[0], fitting[-1]))
    return max(fitting, key=_worth)


def _worth(member: dict[str, Any]) -> float:
    """Returns what a member is believed to score, or scored where nothing is believed."""
    mean: float | None = member.get("mean")
    return member["score"] if mean is None else mean


def _height_above_chord(smallest: dict[str, Any], largest: dict[str, Any]) -> Any:
    """Returns the height of a member above the line between the ends of a front."""
    start, end = math.log(smallest["num_params"]), math.log(largest["num_params"])
    slope = (_worth(largest) - _worth(smallest)) / (end - start) if end > start else 0.0
    return lambda member: _worth(member) - slope * math.log(member["num_params"])


def _check_member(file: Path, member: Any) -> None:
    if not isinstance(member, dict):
        raise damaged(file, "each member of the front must be an object")
    checks = {
        "trial": _is_count(member.get("trial")),
        "num_params": _is_number(member.get("num_params"))
        and _is_count(member["num_params"])
        and member["num_params"] > 0,
        "score": _is_number(member.get("score")),
        **{
            name: member.get(name) is None or _is_number(member[name])
            for name in ("mean", "deviation", "confidence", "loss")
        },
        "learning_rate": member.get("learning_rate") is None
        or (_is_number(member["learning_rate"]) and member["learning_rate"] > 0),
        "config": _is_config(member.get("config")),
    }
    wrong = [f"{key}={brief(member.get(key))}" for key, good in checks.items() if not good]
    if wrong:
        raise damaged(file, f"a member of the front has {', '.join(wrong)}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # also of an int that is too large for a float


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name in CONFIG_FIELDS
        and (_is_modules if name == "lora_modules" else _is_sizes)(name, entry)
        for name, entry in value.items()
    )


def _is_sizes(name: str, entry: Any) -> bool:
    return (
        _is_size(entry)
        or (entry is None and name == "layers_to_transform")
        or (isinstance(entry, list) and len(entry) <= MAX_SIZE and all(map(_is_size, entry)))
    )


def _is_size(value: Any) -> bool:
    return _is_count(value) and value <= MAX_SIZE


def _is_modules(_: str, entry: Any) -> bool:
    names = entry if isinstance(entry, list) else [entry]
    return bool(names) and all(isinstance(name, str) and name for name in names)
