"""The table of a front: its members beside the hand-made choices, all over new seeds.

Imports `baselines`, `comparison`, `front`, `run`, `search` and `training`; imported by `recipe`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from filelock import FileLock, Timeout

from ..run.folder import RunFolder
from ..search import Search
from ..training import Training
from ..training.pretrained import FULL_FINE_TUNING, Method
from .baselines import baseline_methods, baseline_rates, untrained
from .comparison import Comparison, Row, TableStep, count_trainings
from .front import choose_members, train_front

__all__ = ["compare_front", "num_trainings", "table_progress"]

FILE_NAME = "comparison.json"

logger = logging.getLogger(__name__)


def compare_front(
    search: Search,
    training: Training,
    *,
    num_seeds: int,
    learning_rates: Sequence[float],
    limit: int | None = None,
    notify: Callable[[TableStep], None] = lambda _: None,
) -> list[Row]:
    """Returns the rows of the table; the members' adapters are saved in the run folder.

    Every training is kept in the run's ``comparison.json`` as soon as it is done. Of several
    processes that ask for the table of one run, one trains and the others wait for it.

    Args:
        search: A search with complete trials.
        training: What the search trained with.
        num_seeds: Seeds of each row, at least 1; they follow the search's.
        learning_rates: Rates that each hand-made choice may choose from.
        limit: Members of the front at most; None for all.
        notify: Called with each training of the table, trained now or stored.

    Raises:
        SearchError: No trial is complete.
        RunError: The table in the run folder is of another training.
    """
    total = num_trainings(
        search, training, num_seeds=num_seeds, learning_rates=learning_rates, limit=limit
    )
    if training.divides_model:
        logger.warning(
            "The table goes without full fine-tuning, for which a launch with FSDP has no whole "
            "model; the same command without FSDP adds it."
        )
    with _lock(search.folder):
        comparison = Comparison(
            training,
            search.folder.path / FILE_NAME,
            seeds=range(training.seed + 1, training.seed + 1 + num_seeds),
            total=total,
            notify=notify,
        )
        rows = train_front(search, comparison, limit=limit)
        for name, method in _baselines(training).items():
            rows.append(comparison.row(name, method, baseline_rates(method, learning_rates)))
    name, floor = untrained(training, "test")
    return [Row(name, 0, None, (floor.score,)), *rows]


def table_progress(search: Search) -> tuple[int, int | None] | None:
    """Returns how many of the table's trainings are done, and of how many; None before the first.

    Raises:
        RunError: The table in the run folder is damaged.
    """
    return count_trainings(search.folder.path / FILE_NAME)


def num_trainings(
    search: Search,
    training: Training,
    *,
    num_seeds: int,
    learning_rates: Sequence[float],
    limit: int | None,
) -> int:
    """Returns how many trainings the table takes, those that are stored already included."""
    baselines = len(_baselines(training))
    members = len(choose_members(search.front(), limit))
    choosing = baselines * len(learning_rates) if len(learning_rates) > 1 else 0
    return (baselines + members) * num_seeds + choosing


def _baselines(training: Training) -> dict[str, Method]:
    hidden_size = training.model_config.hidden_size
    methods = baseline_methods(hidden_size, has_new_head=training.task.kind.has_new_head)
    if training.divides_model:  # what is divided is not trained
        methods = {n: method for n, method in methods.items() if method != FULL_FINE_TUNING}
    return methods


@contextmanager
def _lock(folder: RunFolder) -> Iterator[None]:
    lock = FileLock(folder.path / ".table.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("Another process trains the table in %s; waiting for it.", folder.path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
