"""The trials of a run in their Optuna study: kept, queued, and taken back from the dead.

One lock makes each step here whole among all workers. A step is one transaction: a process may be
killed between any two lines, and the data base may go away there, and the step has not been.

Beside Optuna's parameters and values a trial carries these user attributes:

    owner, beat                     who works on it (see `worker`)
    params                          its parameters, if it was queued rather than drawn
    retry_of, attempt               the trial that it repeats, because that worker was lost
    late_report_of                  the trial, thought lost, whose result it holds
    loss, seconds, details, score   what came with the result; the score only if it was refused
    rungs, forecast                 how it stood on its way; what it was thought to come to when it
                                    was stopped there (see `rungs`)
    reason                          why it failed, was stopped or refused

The study itself carries the identity of the search (`search`) and when it began (`began`, seconds).

Imports `errors`, `space`, `draw`, `place`, `session`, `snapshot` and `worker`;
imported by `handout` and `search`.
"""

import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ..errors import SearchError
from ..space import SearchSpace
from .draw import Desk
from .place import Place
from .session import StudySession
from .snapshot import Snapshot, params_of
from .worker import Observer, Pulse, this_process

__all__ = ["TrialStore"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# A configuration that took its process down so many times is given up.
MAX_ATTEMPTS = 5

SECONDS_BETWEEN_LOOKS = 1.0

_OPEN_OR_COMPLETE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class TrialStore:
    """The trials of one run; what changes them belongs inside `step`.

    Args:
        place: Where the study is kept.
        space: The search space.
        propose: Gives what proposes parameters, from the facts that the study has.
        identity: Facts of the search; a study with others is refused.

    Raises:
        RunError: The study cannot be opened, or is of another search.
    """

    def __init__(
        self,
        place: Place,
        space: SearchSpace,
        propose: Callable[[dict[str, Any]], BaseSampler],
        identity: dict[str, Any],
    ) -> None:
        self._space = space
        self._token = uuid.uuid4().hex
        self._observer = Observer()
        missed = self._observer.forget
        self.session = StudySession(place, propose, identity, missed)
        self._study = self.session.study
        self.desk = Desk(place.study_name, self._study.directions, self._study.sampler)
        self._pulse = Pulse(self._token, self.session.beat, missed)
        self._looked = -math.inf

    @property
    def pulse(self) -> Pulse:
        """The sign of life for the trials that this worker holds."""
        return self._pulse

    def owner(self) -> dict[str, Any]:
        """Returns what says of a running trial that it is this worker's."""
        return this_process() | {"session": self._token}

    def step(self, work: Callable[[], Result], *, patience: float | None = None) -> Result:
        """Returns what some work gives that no other worker may come between.

        Args:
            work: Tells and the like. It is begun anew where the store went out of reach, so it must
                bear to be repeated.
            patience: Seconds to wait for the store; None for `PATIENCE_SECONDS`.

        Raises:
            SearchError: The store stays out of reach, or fails in a way that will not pass.
        """
        try:
            return self.session.step(work, patience=patience)
        finally:
            self.session.rest()

    def seconds_since_begin(self) -> float:
        """Returns the time since this was first called for the run, by the clock of the store."""
        return self.session.seconds_since_begin()

    def snapshot(self) -> Snapshot:
        """Returns all trials as they are now.

        Raises:
            SearchError: The store stays out of reach.
        """
        if self.session.is_in_step:
            return self.session.snapshot
        try:
            return self.session.read()
        finally:
            self.session.rest()

    def read_study(self, look: Callable[[optuna.Study], Result], known: Snapshot) -> Result:
        """Returns what somebody sees in the study, who only looks at it, as it was known."""
        return self.desk.read(known, look)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials in one of ``states``, all without any; not to be changed."""
        snapshot = self.snapshot()
        return snapshot.of(*states) if states else snapshot.all()

    def trial(self, number: int) -> FrozenTrial:
        """Returns one trial."""
        snapshot = self.snapshot()
        trial = snapshot.get(number)
        if trial is None:
            raise SearchError(f"There is no trial {number}; the run has {len(snapshot)} trials.")
        return trial

    def enqueue(self, params: Mapping[str, Any]) -> bool:
        """Queues parameters, unless they are finished, running or queued; returns whether."""
        self.reap()  # what a dead worker held does not run
        if self.snapshot().twin(params, _OPEN_OR_COMPLETE) is not None:
            return False
        self._queue(params)
        return True

    def complete(self, number: int, values: Sequence[float], facts: Mapping[str, Any]) -> int:
        """Stores the result of a trial and returns the number that now holds it.

        That is another one if the trial was thought lost and taken back meanwhile. A second result
        for the same parameters is kept too, in a failed trial, so that none counts twice.
        """
        trial = self.trial(number)
        self._pulse.release(number)
        if trial.state == TrialState.COMPLETE and trial.values == list(values):
            return number  # told before, though the answer of the store was lost
        if trial.state.is_finished():
            logger.warning("Trial %d was thought lost and reports late.", number)
            late = {"late_report_of": number}
            number = self.session.rows.add(
                self.session.connection, TrialState.RUNNING, late, like=trial
            ).number
        twin = self.snapshot().twin(params_of(trial), (TrialState.COMPLETE,))
        if twin is None:
            self._finish(number, TrialState.COMPLETE, facts, list(values))
        else:
            self._set(number, dict(facts) | {"score": values[0]})
            self.end(number, TrialState.FAIL, f"repeats trial {twin}")
        return number

    def stop(self, number: int, reason: str, facts: Mapping[str, Any]) -> None:
        """Ends a trial on its way; nothing happens if it is finished."""
        self._pulse.release(number)
        if not self.trial(number).state.is_finished():
            self._finish(number, TrialState.PRUNED, {"reason": reason, **facts}, None)

    def fail(self, number: int, reason: str, seconds: float, *, max_attempts: int = 1) -> None:
        """Ends a trial without a result.

        Args:
            number: A trial; nothing happens if it is finished.
            reason: Why.
            seconds: How long it was trained.
            max_attempts: Its parameters are queued again unless they were tried so often.
        """
        if not self.trial(number).state.is_finished():
            self._set(number, {"seconds": seconds})
        if max_attempts > 1:
            self.hand_back(number, reason, counts=True, max_attempts=max_attempts)
        else:
            self.end(number, TrialState.FAIL, reason)

    def hand_back(
        self, number: int, reason: str, *, counts: bool = False, max_attempts: int = MAX_ATTEMPTS
    ) -> None:
        """Ends a trial without a result and queues its parameters again, once.

        Args:
            number: A trial; nothing happens if it is finished.
            reason: Why.
            counts: Whether this was an attempt, as it is not if somebody stopped the worker.
            max_attempts: Attempts after which the parameters are given up.
        """
        self._pulse.release(number)  # first, so that it counts as lost if the store fails now
        trial = self.trial(number)
        params = params_of(trial)
        attempt = trial.user_attrs.get("attempt", 1) + counts
        # The retry comes first: were it not there at the end of the trial, it would never be.
        if attempt > max_attempts:
            reason = f"{reason}; given up after {max_attempts} attempts"
        elif not trial.state.is_finished() and self._is_whole(params) and not self._retried(number):
            self._queue(params, retry_of=number, attempt=attempt)
        self.end(number, TrialState.FAIL, reason)

    def suspects(self) -> list[int]:
        """Returns the running trials whose worker seems to be lost, by what was last read.

        Other workers are looked at no more than once a second: the operating system knows of each
        process of this host, but it takes a while to ask for many.
        """
        running = self.session.snapshot.of(TrialState.RUNNING)
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            running = [t for t in running if self._is_mine(t) or "owner" not in t.user_attrs]
        else:
            self._looked = time.monotonic()
        return [trial.number for trial in running if self._fate(trial) is not None]

    def reap(self, suspects: Collection[int] | None = None) -> None:
        """Hands back the trials whose worker is lost.

        Args:
            suspects: The trials to look at; None for all that run.
        """
        for trial in self.trials(TrialState.RUNNING):
            reason = self._fate(trial) if suspects is None or trial.number in suspects else None
            if reason is not None:
                logger.warning("Trial %d is taken back: %s.", trial.number, reason)
                self.hand_back(trial.number, reason, counts=True)

    def _fate(self, trial: FrozenTrial) -> str | None:
        """Returns why a running trial is lost; None if it may well be trained."""
        if self._is_mine(trial):
            return None if trial.number in self._pulse else "interrupted"
        attributes = trial.user_attrs
        return self._observer.verdict(trial.number, attributes.get("owner"), attributes.get("beat"))

    def _is_mine(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("owner")
        return owner is not None and (owner["session"], owner["pid"]) == self._mine()

    def _mine(self) -> tuple[str, int]:
        """Returns what tells this store from others, also from its copy in a forked process."""
        return self._token, os.getpid()

    def _queue(self, params: Mapping[str, Any], **attributes: Any) -> None:
        self.session.rows.add(
            self.session.connection,
            TrialState.WAITING,
            {"params": dict(params), **attributes},
            system_attrs={"fixed_params": dict(params)},
        )

    def _retried(self, number: int) -> bool:
        return any(trial.user_attrs.get("retry_of") == number for trial in self.trials())

    def _is_whole(self, params: Mapping[str, Any]) -> bool:
        return params.keys() == self._space.dimensions.keys()

    def _set(self, number: int, attributes: Mapping[str, Any]) -> None:
        rows, connection = self.session.rows, self.session.connection
        rows.set_attributes(connection, self.trial(number), attributes)

    def end(self, number: int, state: TrialState, reason: str) -> None:
        """Ends a trial without a result; nothing happens if it is finished."""
        self._pulse.release(number)
        if not self.trial(number).state.is_finished():
            self._finish(number, state, {"reason": reason}, None)

    def _finish(
        self,
        number: int,
        state: TrialState,
        facts: Mapping[str, Any],
        values: Sequence[float] | None,
    ) -> None:
        rows, connection = self.session.rows, self.session.connection
        trial = self.trial(number)
        notes = self.desk.finish(self.session.snapshot, trial, state, values)
        trial = rows.set_attributes(connection, trial, facts, notes)
        rows.end(connection, trial, state, values)
