"""A study, opened where it is kept: read incrementally, and changed step by step.

A step is what no other worker may come between. It is one transaction under the lock of the place,
begun anew where the store goes out of reach, and undone as a whole where it fails.

Imports `errors`, `run`, `patience`, `place`, `rows` and `snapshot`; imported by `store`.
"""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from sqlalchemy import Connection

from ..errors import RunError, SearchError
from ..run.identity import refuse_other_search
from .patience import PATIENCE_SECONDS, patiently, text_of
from .place import Place
from .rows import TrialRows
from .snapshot import Snapshot

__all__ = ["StudySession"]

Result = TypeVar("Result")

# The one place where the direction of optimisation is said: the score up, the parameters down.
DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")

# What was read so long ago is read anew before the lock is asked for.
_OLD_SECONDS = 1.0


class StudySession:
    """One study, made if it is missing.

    Args:
        place: Where it is kept.
        propose: Gives what Optuna shall propose with, from the facts that the study has.
        identity: Facts of the search; a study with others is refused.
        missed: Called each time the store is out of reach.

    Raises:
        RunError: The study cannot be opened, or is of another search.
    """

    def __init__(
        self,
        place: Place,
        propose: Callable[[dict[str, Any]], BaseSampler],
        identity: dict[str, Any],
        missed: Callable[[], None],
    ) -> None:
        self._place = place
        self._missed = missed
        self._began: float | None = None
        self._here = threading.local()
        self._read_at = -math.inf
        try:
            self._patiently(lambda: self._open(propose, identity), place.passes_at_first)
        except RunError:
            raise
        # RuntimeError is what Optuna raises for tables of another version.
        except (optuna.exceptions.OptunaError, RuntimeError) as error:
            cause = error.__cause__ if isinstance(error, SearchError) else error
            raise RunError(
                f"The trials in {place.where} cannot be read ({text_of(cause or error)}); see that "
                f"the file or the data base is whole and within reach and its password right, use "
                f"the version of Optuna that wrote it, or give another folder or data base."
            ) from error
        finally:
            place.rest()

    def _open(
        self, propose: Callable[[dict[str, Any]], BaseSampler], identity: dict[str, Any]
    ) -> None:
        with self._place.first_lock(), _quiet_optuna():
            storage = self._place.open()
            self.study = optuna.create_study(
                storage=storage,
                study_name=self._place.study_name,
                directions=DIRECTIONS,
                load_if_exists=True,
            )
            stored = self.study.user_attrs.get("search")
            if stored is None:
                self.study.set_user_attr("search", identity)
            else:
                refuse_other_search(self._place.where, stored, identity)
            self.study.sampler = propose(identity if stored is None else stored)
            _name_objectives(self.study)
            self.rows = TrialRows(storage.get_study_id_from_name(self._place.study_name))

    @property
    def connection(self) -> Connection:
        """The connection of the step that this thread is in."""
        connection: Connection = self._here.connection
        return connection

    @property
    def is_in_step(self) -> bool:
        """Whether this thread is in a step."""
        return getattr(self._here, "connection", None) is not None

    @property
    def snapshot(self) -> Snapshot:
        """The trials as they were last read, or are written in this step."""
        return self.rows.snapshot

    def step(
        self,
        work: Callable[[], Result],
        *,
        patience: float | None = None,
        undo: Callable[[], None] = lambda: None,
    ) -> Result:
        """Returns what some work gives that no other worker may come between.

        Args:
            work: Reads and writes; it must bear to be repeated.
            patience: Seconds to wait for the store; None for `PATIENCE_SECONDS`.
            undo: Called if the step fails, also before it is repeated.

        Raises:
            SearchError: The store stays out of reach, or fails in a way that will not pass.
        """

        def locked() -> Result:
            try:
                if time.monotonic() - self._read_at > _OLD_SECONDS:
                    self._read()  # most of it, without keeping others waiting
                with self._place.lock() as connection:
                    self._here.connection = connection
                    self.rows.read(connection, attributes=False)
                    return work()
            except BaseException:
                self.rows.forget()
                self._read_at = -math.inf
                undo()
                raise
            finally:
                self._here.connection = None

        return self._patiently(locked, self._place.passes, patience)

    def read(self) -> Snapshot:
        """Returns all trials as they are now, outside of a step.

        Raises:
            SearchError: The store stays out of reach.
        """
        self._patiently(self._read, self._place.passes)
        return self.snapshot

    def rest(self) -> None:
        """Lets go of connections, before a time in which none is needed."""
        self._place.rest()

    def seconds_since_begin(self) -> float:
        """Returns, in a step, the time since this was first called, by the clock of the store."""
        now = self._place.now(self.connection)
        began = self._began if self._began is not None else self.study.user_attrs.get("began")
        if began is None:
            self.study.set_user_attr("began", now)
            return 0.0
        self._began = began
        return max(0.0, now - began)

    def beat(self, number: int, beat: int) -> None:
        """Stores a sign of life of a running trial, in no step."""
        trial = self.snapshot.get(number)
        if trial is not None and trial.state == TrialState.RUNNING:
            try:
                self.study._storage.set_trial_user_attr(trial._trial_id, "beat", beat)
            finally:
                self._place.rest()

    def _read(self) -> None:
        with self._place.reading() as connection:
            self.rows.read(connection)
        self._read_at = time.monotonic()

    def _patiently(
        self,
        work: Callable[[], Result],
        passes: Callable[[Exception], bool],
        patience: float | None = None,
    ) -> Result:
        patience = PATIENCE_SECONDS if patience is None else patience
        return patiently(work, self._place, passes, patience=patience, missed=self._missed)


def _name_objectives(study: optuna.Study) -> None:
    """Says what the two values are, for optuna-dashboard and Optuna's own pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names is None:
            study.set_metric_names(["score", "num_params"])


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from telling the terminal that it opened a study; warnings stay."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
