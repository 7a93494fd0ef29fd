"""The trials of a run in their Optuna study: handed out, kept, taken back from the dead.

One lock makes each step here whole among all workers: whoever asks first takes back the trials of
lost workers, then gets a configuration that nobody has finished or is training. A process may be
killed between any two lines, and the data base may go away there; each step leaves a state that the
next one, or the same one repeated, repairs.

Beside Optuna's parameters and values a trial carries these user attributes:

    owner, beat                     who works on it (see `worker`)
    params                          its parameters, if it was queued rather than drawn
    retry_of, attempt               the trial that it repeats, because that worker was lost
    late_report_of                  the trial, thought lost, whose result it holds
    loss, seconds, details, score   what came with the result; the score only if it was refused
    reason                          why it failed or was refused

The study itself carries the identity of the search (`search`) and when it began (`began`, seconds).

Imports `errors`, `run`, `space`, `patience`, `place` and `worker`; imported by `search`.
"""

import logging
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..errors import RunError, SearchError
from ..run.identity import refuse_other_search
from ..space import SearchSpace
from .patience import PATIENCE_SECONDS, patiently, text_of
from .place import Place
from .worker import Observer, Pulse, this_process

__all__ = ["TrialStore"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# The one place where the direction of optimisation is said: the score up, the parameters down.
DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")

# A configuration that took its process down so many times is given up.
MAX_ATTEMPTS = 5

# Draws in a row that may be invalid or repeats, which only samplers that ignore the space give.
MAX_DRAWS = 200


class TrialStore:
    """The trials of one run; what changes them belongs inside `step`.

    Args:
        place: Where the study is kept.
        space: The search space.
        sampler: What proposes parameters.
        identity: Facts of the search; a study with others is refused.

    Raises:
        RunError: The study cannot be opened, or is of another search.
    """

    def __init__(
        self, place: Place, space: SearchSpace, sampler: BaseSampler, identity: dict[str, Any]
    ) -> None:
        self._place = place
        self._space = space
        self._session = uuid.uuid4().hex
        self._observer = Observer()
        self._pulse = Pulse(
            lambda number, beat: self._set(number, "beat", beat), self._observer.forget
        )
        try:
            self._patiently(lambda: self._open(sampler, identity), place.passes_at_first)
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

    def _open(self, sampler: BaseSampler, identity: dict[str, Any]) -> None:
        with self._place.first_lock(), _quiet_optuna():
            self._storage = self._place.open()
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=self._place.study_name,
                directions=DIRECTIONS,
                sampler=sampler,
                load_if_exists=True,
            )
            stored = self._study.user_attrs.get("search")
            if stored is None:
                self._study.set_user_attr("search", identity)
            else:
                refuse_other_search(self._place.where, stored, identity)
            _name_objectives(self._study)
            self._study_id = self._storage.get_study_id_from_name(self._place.study_name)

    def step(self, work: Callable[[], Result], *, patience: float | None = None) -> Result:
        """Returns what some work gives that no other worker may come between.

        Args:
            work: Asks, tells and the like. It is begun anew where the store went out of reach, so
                it must bear to be repeated.
            patience: Seconds to wait for the store; None for `PATIENCE_SECONDS`.

        Raises:
            SearchError: The store stays out of reach, or fails in a way that will not pass.
        """

        def locked() -> Result:
            with self._place.lock():
                return work()

        return self._patiently(locked, self._place.passes, patience)

    def _patiently(
        self,
        work: Callable[[], Result],
        passes: Callable[[Exception], bool],
        patience: float | None = None,
    ) -> Result:
        return patiently(
            work,
            self._place,
            passes,
            patience=PATIENCE_SECONDS if patience is None else patience,
            missed=self._observer.forget,
        )

    def seconds_since_begin(self) -> float:
        """Returns the time since this was first called for the run, by the clock of the store."""
        now, began = self._place.now(), self._study.user_attrs.get("began")
        if began is None:
            self._study.set_user_attr("began", now)
        return 0.0 if began is None else max(0.0, now - began)

    def snapshot(self) -> list[FrozenTrial]:
        """Returns all trials as they are now, outside of a `step`.

        Raises:
            SearchError: The store stays out of reach.
        """
        return self._patiently(self.trials, self._place.passes)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials in one of ``states``, all without any; not to be changed."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    def trial(self, number: int) -> FrozenTrial:
        """Returns one trial."""
        trials = self.trials()
        if not 0 <= number < len(trials):
            raise SearchError(f"There is no trial {number}; the run has {len(trials)} trials.")
        return trials[number]

    def ask(self) -> FrozenTrial:
        """Returns a running trial of this worker: a queued one, else a new proposal.

        Raises:
            SearchError: The sampler does not find a configuration that is valid and new.
        """
        self._refuse_exhausted()
        for _ in range(MAX_DRAWS):
            trial = self._study.ask()
            refusal = self._draw(trial)
            if refusal is None:
                return self.trial(trial.number)
            self._end(trial.number, *refusal)
        raise SearchError(
            f"No valid and new configuration in {MAX_DRAWS} draws of "
            f"{type(self._study.sampler).__name__}; the space has {self._space.num_points} points: "
            f"use BayesianSampler, which knows them, or fewer trials."
        )

    def enqueue(self, params: Mapping[str, Any]) -> bool:
        """Queues parameters, unless they are finished, running or queued; returns whether."""
        if self._twin(params, _OPEN_OR_COMPLETE) is not None:
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
            number = self._reenter(trial)
        for name, value in facts.items():
            self._set(number, name, value)
        twin = self._twin(_params(trial), (TrialState.COMPLETE,))
        if twin is None:
            self._study.tell(number, list(values))
        else:
            self._set(number, "score", values[0])
            self._end(number, TrialState.FAIL, f"repeats trial {twin}")
        return number

    def fail(self, number: int, reason: str, seconds: float, *, max_attempts: int = 1) -> None:
        """Ends a trial without a result.

        Args:
            number: A trial; nothing happens if it is finished.
            reason: Why.
            seconds: How long it was trained.
            max_attempts: Its parameters are queued again unless they were tried so often.
        """
        if not self.trial(number).state.is_finished():
            self._set(number, "seconds", seconds)
        if max_attempts > 1:
            self.hand_back(number, reason, counts=True, max_attempts=max_attempts)
        else:
            self._end(number, TrialState.FAIL, reason)

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
        params = _params(trial)
        attempt = trial.user_attrs.get("attempt", 1) + counts
        # The retry comes first: a crash before the end finds it there and adds no other.
        if attempt > max_attempts:
            reason = f"{reason}; given up after {max_attempts} attempts"
        elif not trial.state.is_finished() and self._is_whole(params) and not self._retried(number):
            self._queue(params, retry_of=number, attempt=attempt)
        self._end(number, TrialState.FAIL, reason)

    def reap(self) -> None:
        """Hands back the trials whose worker is lost."""
        for trial in self.trials(TrialState.RUNNING):
            owner = trial.user_attrs.get("owner")
            if owner is not None and (owner["session"], owner["pid"]) == self._mine():
                reason = None if trial.number in self._pulse else "interrupted"
            else:
                reason = self._observer.verdict(trial.number, owner, trial.user_attrs.get("beat"))
            if reason is not None:
                logger.warning("Trial %d is taken back: %s.", trial.number, reason)
                self.hand_back(trial.number, reason, counts=True)

    def _mine(self) -> tuple[str, int]:
        """Returns what tells this store from others, also from its copy in a forked process."""
        return self._session, os.getpid()

    def _refuse_exhausted(self) -> None:
        trials = self.trials(TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL)
        if len(trials) < self._space.num_points:
            return
        whole = [params for params in map(_params, trials) if self._is_whole(params)]
        tried = {tuple(sorted(params.items())) for params in whole}
        if len(tried) >= self._space.num_points and not self.trials(TrialState.WAITING):
            raise SearchError(
                f"All {self._space.num_points} points of the space are tried or being tried; ask "
                f"for fewer trials, or give the space more choices."
            )

    def _draw(self, trial: optuna.Trial) -> tuple[TrialState, str] | None:
        """Gives a trial its owner and parameters.

        Returns:
            None if it may be trained, else how it must end and why. A repeat fails, as samplers
            take a pruned trial for a bad configuration.
        """
        try:
            self._set(trial.number, "owner", this_process() | {"session": self._session})
            self._pulse.hold(trial.number)
            self._space.suggest(trial)
            if self._space.learning_rates is not None:
                trial.suggest_categorical("learning_rate", self._space.learning_rates)
        except optuna.TrialPruned as refused:
            return TrialState.PRUNED, str(refused)
        except BaseException as error:
            self.hand_back(trial.number, f"no proposal: {error!r}")
            raise
        # A failed configuration comes again only if somebody queued it.
        queued = "params" in trial.user_attrs
        twin = self._twin(
            trial.params,
            (TrialState.COMPLETE, TrialState.RUNNING, *(() if queued else (TrialState.FAIL,))),
            other_than=trial.number,
        )
        return None if twin is None else (TrialState.FAIL, f"repeats trial {twin}")

    def _queue(self, params: Mapping[str, Any], **attributes: Any) -> None:
        self._study.enqueue_trial(dict(params), user_attrs={"params": dict(params), **attributes})

    def _retried(self, number: int) -> bool:
        return any(trial.user_attrs.get("retry_of") == number for trial in self.trials())

    def _is_whole(self, params: Mapping[str, Any]) -> bool:
        return params.keys() == self._space.dimensions.keys()

    def _twin(
        self, params: Mapping[str, Any], states: Sequence[TrialState], other_than: int = -1
    ) -> int | None:
        """Returns the number of another trial with the same parameters, in one of the states."""
        wanted = dict(params)
        for trial in self.trials(*states):
            if trial.number != other_than and _params(trial) == wanted:
                return trial.number
        return None

    def _reenter(self, trial: FrozenTrial) -> int:
        """Returns a new running trial with the parameters of one that was thought lost."""
        logger.warning("Trial %d was thought lost and reports late.", trial.number)
        template = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"late_report_of": trial.number},
        )
        trial_id = self._storage.create_new_trial(self._study_id, template)
        return self._storage.get_trial(trial_id).number

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        self._pulse.release(number)
        if self.trial(number).state.is_finished():
            return
        self._set(number, "reason", reason)
        self._study.tell(number, state=state)

    def _set(self, number: int, name: str, value: Any) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_user_attr(trial_id, name, value)


_OPEN_OR_COMPLETE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


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


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the parameters of a trial, also of one that waits or was just taken up."""
    params: dict[str, Any] = trial.user_attrs.get("params") or trial.params
    return params
