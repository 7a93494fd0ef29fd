"""One trial evaluated: an objective called with what it takes, and whatever comes of it stored.

Imports `errors`, `rungs` and `trial`; imported by `search`.
"""

import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from ..errors import AutoConfigError, WorkerError
from ..outcome import Outcome
from .rungs import Reporter
from .trial import TrialRecord

if TYPE_CHECKING:
    from .search import Search

__all__ = ["Objective", "evaluate"]

logger = logging.getLogger(__name__)

# Called with the configuration, with ``learning_rate=`` if the space has learning rates, and with
# ``report=`` if it takes one: a `Reporter`, to be called on the way.
Objective = Callable[..., float | Outcome]


def evaluate(
    search: "Search",
    objective: Objective,
    trial: FrozenTrial,
    reporter: Reporter,
    *,
    retries: int = 0,
) -> TrialRecord:
    """Returns the record of a running trial, once the objective has ended in any way.

    Args:
        search: The search that handed out the trial; an interruption hands it back.
        objective: What trains and scores.
        trial: The trial.
        reporter: What takes how the training stands, if the objective tells.
        retries: How often a configuration comes again whose objective raised.
    """
    arguments = {k: v for k, v in trial.params.items() if k == "learning_rate"}
    arguments |= {"report": reporter} if _takes_report(objective) else {}
    started = time.perf_counter()
    try:
        try:
            result = objective(search.space.config(trial.params), **arguments)
        except optuna.TrialPruned as stopped:
            seconds = time.perf_counter() - started
            return search.stop(trial.number, str(stopped), reporter, seconds=seconds)
        except WorkerError:
            raise
        except Exception as error:
            logger.debug("Trial %d raised", trial.number, exc_info=True)
            return search.fail(
                trial.number,
                f"{type(error).__name__}: {error}",
                seconds=time.perf_counter() - started,
                # what we refuse ourselves would be refused again
                max_attempts=1 if isinstance(error, AutoConfigError) else 1 + retries,
            )
        seconds = time.perf_counter() - started
        return search.tell(trial.number, result, seconds=seconds, reporter=reporter)
    except BaseException:
        search.hand_back(trial.number)
        raise


def _takes_report(objective: Callable[..., Any]) -> bool:
    try:
        return "report" in inspect.signature(objective).parameters
    except (TypeError, ValueError):  # a callable of C that does not say
        return False
