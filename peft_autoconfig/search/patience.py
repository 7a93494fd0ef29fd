"""Outliving a store that is out of reach for a while, or saying what is wrong with it.

Imports `errors` and `place`; imported by `store`.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
from sqlalchemy.exc import SQLAlchemyError

from ..errors import SearchError
from .place import LockLost, Place, cause_of

__all__ = ["LAST_PATIENCE_SECONDS", "PATIENCE_SECONDS", "STORE_ERRORS", "patiently", "text_of"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# How long a worker waits for a store that is out of reach: long enough to restart a server or to
# free a disk. A worker that only wants to hand its trial back is about to be killed.
PATIENCE_SECONDS = 900.0
LAST_PATIENCE_SECONDS = 10.0

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 10.0

# What Optuna and SQLAlchemy raise where a store fails.
STORE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, LockLost)


def patiently(
    work: Callable[[], Result],
    place: Place,
    passes: Callable[[Exception], bool],
    *,
    patience: float,
    missed: Callable[[], None],
) -> Result:
    """Returns what some work in a store gives, begun anew where the store fails for a while.

    Args:
        work: Reads and writes; must bear to be repeated.
        place: The store.
        passes: Says of an error whether it may be gone in a while.
        patience: Seconds to wait at most.
        missed: Called after each failure.

    Raises:
        SearchError: The store stays out of reach, or fails in a way that will not pass.
    """
    deadline, pause = time.monotonic() + patience, FIRST_PAUSE_SECONDS
    while True:
        try:
            return work()
        except STORE_ERRORS as error:
            missed()
            is_passing = passes(error)
            if not is_passing or time.monotonic() + pause > deadline:
                waited = f" for {patience:.0f} s" if is_passing else ""
                raise SearchError(
                    f"Expected to read and write {place.where}, but it failed{waited}: "
                    f"{text_of(error)}. {_advice(error)}; then run the same command again: what is "
                    f"finished is kept."
                ) from error
            logger.warning("%s is out of reach (%s); trying again.", place.where, text_of(error))
            if _is_crowded(error):
                logger.warning("%s, or this worker waits until others train.", _advice(error))
        # Many workers that failed at once shall not all come back at once.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _is_crowded(error: BaseException) -> bool:
    """Returns whether a server has no connection left."""
    return any(sign in text_of(error) for sign in ("too many clients", "slots are reserved"))


def _advice(error: BaseException) -> str:
    """Returns what to do about an error of a store, without the full stop."""
    if _is_crowded(error):
        return (
            "Raise max_connections of the data base above the number of workers, or put a pooler "
            "before it"
        )
    return "See that the data base runs, that this machine reaches it and that its disk has room"


def text_of(error: BaseException) -> str:
    """Returns what an error of a store says, on one line and without its statement."""
    cause = cause_of(error)
    return " ".join(str(getattr(cause, "orig", None) or cause).split())
