"""Trials as curves in TensorBoard, Weights & Biases, trackio and whatever else Accelerate knows.

    with Trackers(["tensorboard"], search) as trackers:
        search.run(objective, 40, callbacks=[trackers])

Imports `errors`, `search`, `trial` and accelerate; imported by the command line.
"""

import json
import logging
from collections.abc import Sequence
from types import TracebackType

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from ..errors import ConfigError
from .search import Search
from .trial import TrialRecord, non_dominated

__all__ = ["Trackers"]

logger = logging.getLogger(__name__)

PROJECT = "peft-autoconfig"


class Trackers:
    """Logs the trials of a search; a context, and a callback of `Search.run` and `Search.pilot`.

    One point per complete trial, its number for the step: what it gave, and how the front of
    the bare scores then stood. Trials of other workers are logged too, by the main process of a
    launch, and those of earlier runs of the same search come first.

    Args:
        names: Names of trackers as Accelerate has them ("tensorboard", "wandb", "trackio", ...),
            "all", or trackers of one's own; none does nothing.
        search: The search; files of trackers go into the folder ``trackers`` of its run.

    Raises:
        ConfigError: A name is unknown, or what it needs is not installed.
    """

    def __init__(self, names: Sequence[str | GeneralTracker], search: Search) -> None:
        self._logged: set[int] = set()
        self._accelerator: Accelerator | None = None
        if not names:
            return
        _check(names)
        folder = search.folder.path / "trackers"
        self._accelerator = Accelerator(log_with=list(names), project_dir=str(folder))
        self._accelerator.init_trackers(PROJECT, config=_settings(search))
        self._log_new(search)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._accelerator.trackers if self._accelerator else ():
            tracker.finish()

    def __call__(self, search: Search, record: TrialRecord) -> None:
        """Logs what has been completed since the last call."""
        self._log_new(search)

    def _log_new(self, search: Search) -> None:
        if self._accelerator is None:
            return
        complete: list[TrialRecord] = []
        for record in search.trials:
            if record.state != "COMPLETE":
                continue
            complete.append(record)
            if record.number not in self._logged:
                self._logged.add(record.number)
                values = _values(record, non_dominated(complete))
                self._accelerator.log(values, step=record.number)


def _values(record: TrialRecord, front: Sequence[TrialRecord]) -> dict[str, float]:
    values = {
        "score": record.score,
        "num_params": record.num_params,
        "loss": record.loss,
        "learning_rate": record.learning_rate,
        "seconds": record.seconds,
        "best_score": front[-1].score,
        "best_num_params": front[-1].num_params,
        "front_size": len(front),
    }
    return {f"search/{name}": float(value) for name, value in values.items() if value is not None}


def _settings(search: Search) -> dict[str, str | int | float | bool]:
    """Returns the facts about a search, one level deep, as trackers want them."""
    values = {"space": search.space.to_dict(), **search.about}
    return {
        name: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for name, value in values.items()
    }


def _check(names: Sequence[str | GeneralTracker]) -> None:
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if isinstance(name, GeneralTracker) or name == "all" or name in available:
            continue
        known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
        what = f"is not installed: pip install {name}" if name in known else "is unknown"
        raise ConfigError(f"Tracker {name!r} {what}; Accelerate knows {', '.join(known)}.")
