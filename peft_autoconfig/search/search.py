"""The search: proposes configurations, has them evaluated, keeps every result in a run folder.

On the way it stands between the space and the training: it hands an `AutoPEFTConfig` to an
objective, any callable that trains and scores it, and stores what comes back. All that it knows is
in the run folder or a data base, so that any number of processes may run it, be killed, and go on.

Imports `errors`, `outcome`, `space`, `run`, what lies beside it and, late, `sampler`.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError, RunError, SearchError
from ..outcome import Outcome
from ..run.folder import RunFolder, choose
from ..run.identity import identity_of
from ..space import SearchSpace
from ..tuner.config import AutoPEFTConfig
from .budget import Budget
from .database import place_of, reached
from .evaluation import Objective, evaluate
from .failures import refuse_failures
from .front_file import FrontFile, believed_members
from .handout import Handout
from .patience import LAST_PATIENCE_SECONDS
from .pilot import leaves_baseline, pilot_points, refusal, states_of
from .rungs import Reporter
from .snapshot import Snapshot
from .store import TrialStore
from .trial import (
    Records,
    TrialRecord,
    checked_outcome,
    facts_of,
    front_member,
    trials_table,
)
from .warm_start import earlier_facts, sampler_for

if TYPE_CHECKING:
    import pandas

__all__ = ["Callback", "Objective", "Search"]

logger = logging.getLogger(__name__)

# Called after each trial of this worker, with the search and the record of the trial.
Callback = Callable[["Search", TrialRecord], None]

# How long a worker that has nothing to do waits before it looks again.
POLL_SECONDS = 1.0


class Search:
    """A search over a space, kept in a run folder.

    The folder belongs to one space and one set of facts; with the same ones it is opened again,
    also by several processes at once, and the search goes on.

    Args:
        space: What may vary.
        run: The run folder, made if it is missing.
        seed: Seed of the proposals. A run may go on under another one.
        about: Facts that results depend on (model, task, training), JSON-compatible; a run with
            other facts is refused. ``num_base_params``, if among them, is the parameter count of
            the base model, to which the front then states its fractions.
        sampler: What proposes; the default is our own `BayesianSampler`.
        storage: Address of a PostgreSQL data base that keeps the trials, so that workers on many
            machines may share them, as ``postgresql+psycopg2://user@host/database``; each machine
            may have a run folder of its own, of the same name. None keeps the trials where the
            folder has them: in itself, if it is new. A password is written nowhere; it may also
            come from ``PEFT_AUTOCONFIG_STORAGE_PASSWORD``.
        warm_start: Run folders of searches of other tasks on the same base model, to start from
            what they found. A run keeps it, so it need be said only when the run begins.

    Raises:
        ConfigError: ``storage`` is no such address, or an earlier run has another base model.
        RunError: The folder or the data base is unusable, or is of another search.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: str | os.PathLike[str] = "run",
        *,
        seed: int = 0,
        about: dict[str, Any] | None = None,
        sampler: BaseSampler | None = None,
        storage: str | None = None,
        warm_start: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.space = space
        self.about = dict(about or {})
        self.folder = RunFolder.at(run)
        if sampler is not None and warm_start:
            raise ConfigError("warm_start is for our own sampler; give it or sampler, not both.")
        facts: dict[str, Any] = {"space": space.to_dict(), "about": self.about, "seed": seed}
        facts["earlier"] = earlier_facts(warm_start, space, self.about, self.folder)
        stored = self.folder.claim(**facts, storage=None if storage is None else reached(storage))
        facts["earlier"] = stored.get("earlier")
        self._store = TrialStore(
            place_of(self.folder, storage or stored.get("storage")),
            space,
            lambda kept: sampler or sampler_for(space, seed, kept, str(self.folder.identity_file)),
            identity_of(**facts, storage=None),
        )
        self._handout = Handout(self._store, space)
        self._records = Records(space)
        self._front: list[TrialRecord] = []
        self._front_of = (0, 0)  # trials, complete and pruned
        num_base_params = self.about.get("num_base_params")
        self._front_file = FrontFile(self.folder, self._records, num_base_params, self._members)

    @classmethod
    def open(cls, run: str | os.PathLike[str]) -> "Search":
        """Returns the search that a run folder holds, to look at it or to go on with it.

        Raises:
            RunError: There is no search, or it is damaged.
        """
        identity = RunFolder.at(run).identity()
        try:
            space = SearchSpace.from_dict(identity["space"])
        except (ValueError, TypeError, ArithmeticError) as error:
            raise RunError(
                f"The space in {RunFolder.at(run).identity_file} cannot be read ({error}); restore "
                f"the file, or use the version of peft_autoconfig that wrote it."
            ) from error
        return cls(space, run, seed=identity.get("seed", 0), about=identity["about"])

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials of the run by number, those of other workers included."""
        return [self._records.of(trial) for trial in self._store.trials()]

    def front(self) -> list[TrialRecord]:
        """Returns the non-dominated configurations, each at its best rate, smallest first.

        They are those that a model of all scores believes to be it, since of many noisy scores the
        best are mostly those that noise favoured: each has what it is believed to score
        (``mean``), and their own scores need not rise with the parameters. See
        `sampler.believed_front`.
        """
        return self._members(self._store.snapshot())

    def best(self, *, max_params: int | None = None, select: str = "score") -> TrialRecord:
        """Returns one member of the front; see `run.folder.choose` for the arguments.

        Raises:
            SearchError: No trial is complete.
            RunError: No member meets the budget.
        """
        front = {record.number: record for record in self.front()}
        if not front:
            raise SearchError(f"The run in {self.folder.path} has no complete trial yet.")
        members = [front_member(record, None) for record in front.values()]
        return front[choose(members, max_params=max_params, select=select)["trial"]]

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns the trials as a table, a row for each by number.

        Its columns are those of `TrialRecord` (the configuration as one column a field) and
        ``on_front``. Layers and sizes by layer are lists in their cells, hence objects.
        """
        return trials_table(self.trials, self.front())

    def run(
        self,
        objective: Objective,
        n_trials: int,
        *,
        max_hours: float | None = None,
        max_training_hours: float | None = None,
        retries: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> list[TrialRecord]:
        """Searches until the run holds ``n_trials`` trials that are done; returns the front.

        Done are those that are complete, and those that were stopped at a rung since they could
        not reach the front (see `rungs`). The count is over the whole run: the same call, made
        again after an interruption or in several processes at once, ends at exactly that number.
        A trial whose objective raises, or returns no finite score, fails and does not count. An
        interruption (Ctrl-C) is passed on after its trial was queued again.

        Args:
            objective: Called with a configuration, with ``learning_rate=`` if the space has
                learning rates, and with ``report=`` if it takes that: a `Reporter`, to be called on
                the way. Returns a score, higher is better, or an `Outcome`.
            n_trials: Trials that shall be done, at least 1.
            max_hours: Hours since the run began after which no trial begins; see `Budget`.
            max_training_hours: Hours of training at most, summed over all workers; see `Budget`.
            retries: How often a configuration is tried again whose objective raised an error that
                is not one of ours, such as one of memory; at least 0.
            callbacks: Called with this search and the record of each trial that ends here.

        Raises:
            ConfigError: A limit is no such number, or ``n_trials`` more than the space has points.
            SearchError: The first trials all fail, or most do; or the store is out of reach.
        """
        budget = Budget(n_trials, max_hours, max_training_hours, retries)
        budget.refuse_more_than(self.space.num_points)
        mine: list[TrialRecord] = []
        while (trial := self._next(budget)) is not None:
            mine.append(self._evaluate(objective, trial, retries=retries))
            for callback in callbacks:
                callback(self, mine[-1])
            refuse_failures(self, mine)
        self._front_file.write(self._store.snapshot)
        return self.front()

    def pilot(
        self,
        objective: Objective,
        baseline_score: float,
        *,
        margin: float = 0.01,
        baseline_loss: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Makes sure that configurations can leave the majority class before a budget is spent.

        Evaluates a middle configuration and the largest, each at up to three learning rates,
        as ordinary trials that count, and stops at the first that tells something. In a run that
        already holds such a trial it does nothing.

        Args:
            objective: As in `run`.
            baseline_score: Score without training, such as the majority class's.
            margin: How far a score must exceed it, in units of the score, at least 0.
            baseline_loss: Loss of the constant predictor; None if unknown.
            callbacks: As in `run`.

        Raises:
            SearchError: All of them stay at the constant predictor, or fail.
        """
        points = pilot_points(self.space)
        for config, rate in points:
            if leaves_baseline(self.trials, baseline_score, margin, baseline_loss):
                return
            self.enqueue(config, rate)
            while "WAITING" in states_of(self.trials, config, rate):
                record = self._evaluate(objective, self._take())
                for callback in callbacks:
                    callback(self, record)
        self._await(points)
        if not leaves_baseline(self.trials, baseline_score, margin, baseline_loss):
            raise SearchError(refusal(self.trials, points, baseline_score))

    def enqueue(self, config: AutoPEFTConfig, learning_rate: float | None = None) -> bool:
        """Queues a configuration ahead of all proposals; returns whether it was new to the run.

        Raises:
            ConfigError: The configuration or the learning rate is not in the space.
        """
        params = self.space.params(config, learning_rate)
        return self._store.step(lambda: self._store.enqueue(params))

    def ask(self) -> TrialRecord:
        """Returns a running trial to evaluate; `tell`, `fail` or `hand_back` must follow.

        Raises:
            SearchError: The sampler finds no configuration that is new.
        """
        return self._records.of(self._take())

    def tell(
        self,
        number: int,
        result: float | Outcome,
        *,
        seconds: float = 0.0,
        reporter: Reporter | None = None,
    ) -> TrialRecord:
        """Stores the result of a trial and renews the front; returns the trial's record.

        A result that is no finite score fails the trial. The result of a trial that was thought
        lost is kept under a new number.

        Args:
            number: The trial's number.
            result: What an objective returned.
            seconds: How long the evaluation took, if the result does not say.
            reporter: What took how the training stood on its way.

        Raises:
            SearchError: The trial was never handed out.
        """
        trial = self._known(number)
        if trial.state == TrialState.WAITING:
            raise SearchError(f"Trial {number} waits in the queue; only an asked one can be told.")
        try:
            outcome = checked_outcome(result)
            facts = facts_of(outcome, seconds) | (reporter.facts if reporter else {})
        except Exception as error:  # the result is foreign: numbers beyond floats, depth, any class
            return self.fail(number, str(error), seconds=seconds)
        config = self.space.config(trial.params)
        values = (outcome.score, float(self.space.num_params(config)))

        kept = self._store.step(lambda: self._store.complete(number, values, facts))
        known = self._store.session.snapshot
        self._front_file.follow(known, self._store.snapshot)
        return self._record(kept)

    def stop(self, number: int, reason: str, reporter: Reporter, *, seconds: float) -> TrialRecord:
        """Ends a trial that was stopped on its way; it is done, without a score.

        Args:
            number: The trial's number.
            reason: Why.
            reporter: What took how the training stood.
            seconds: How long it was trained.
        """

        facts = {"seconds": seconds} | reporter.facts
        self._store.step(lambda: self._store.stop(number, reason, facts))
        return self._record(number)

    def fail(
        self, number: int, reason: str, *, seconds: float = 0.0, max_attempts: int = 1
    ) -> TrialRecord:
        """Ends a trial without a result.

        Args:
            number: The trial's number.
            reason: Why.
            seconds: How long it was trained.
            max_attempts: Its configuration comes again unless it was tried so often.
        """
        logger.warning("Trial %d failed: %s", number, reason)
        store = self._store
        store.step(lambda: store.fail(number, reason, seconds, max_attempts=max_attempts))
        return self._record(number)

    def hand_back(self, number: int, reason: str = "interrupted") -> None:
        """Ends a trial without a result and queues its configuration again."""
        store = self._store
        store.step(lambda: store.hand_back(number, reason), patience=LAST_PATIENCE_SECONDS)

    def _members(self, snapshot: Snapshot) -> list[TrialRecord]:
        """Returns the front of some trials; it is kept until one of them has ended."""
        key = snapshot.count(TrialState.COMPLETE), snapshot.count(TrialState.PRUNED)
        if key != self._front_of:
            self._front = self._store.read_study(
                lambda study: believed_members(study, self.space, self._records), snapshot
            )
            self._front_of = key
        return list(self._front)

    def _record(self, number: int) -> TrialRecord:
        return self._records.of(self._known(number))

    def _known(self, number: int) -> FrozenTrial:
        """Returns a trial as last read, if it had begun by then, else as it is."""
        trial = self._store.session.snapshot.get(number)
        return trial if trial is not None and trial.params else self._store.trial(number)

    def _take(self) -> FrozenTrial:
        trial = self._handout.next()
        assert isinstance(trial, FrozenTrial)
        return trial

    def _next(self, budget: Budget) -> FrozenTrial | None:
        """Returns a trial to evaluate; None when the budget is spent."""
        store = self._store
        while True:
            found = self._handout.next(
                lambda: budget.verdict(store.snapshot(), store.seconds_since_begin())
            )
            if isinstance(found, FrozenTrial):
                return found
            if found == "end":
                return None
            time.sleep(POLL_SECONDS)

    def _evaluate(
        self, objective: Objective, trial: FrozenTrial, *, retries: int = 0
    ) -> TrialRecord:
        num_params = self.space.num_params(self.space.config(trial.params))
        reporter = Reporter(self._store.trials, num_params)
        return evaluate(self, objective, trial, reporter, retries=retries)

    def _await(self, points: Iterable[tuple[AutoPEFTConfig, float | None]]) -> None:
        """Waits until other workers have finished what they train of ``points``."""
        while any("RUNNING" in states_of(self.trials, *point) for point in points):
            time.sleep(POLL_SECONDS)
            self._store.step(self._store.reap)
