"""Handing out trials: those of the queue, else new ones with what a sampler proposes.

Whoever asks first takes back the trials of lost workers, then gets a trial, in one step; a second
one gives it a configuration that nobody has finished or is training. What is proposed is thought of
in between, so that nobody has to wait for it, and thought of anew if somebody was faster.

Imports `errors`, `space`, `budget`, `patience`, `snapshot` and `store`; imported by `search`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError, SearchError
from ..space import SearchSpace
from .budget import Verdict
from .patience import LAST_PATIENCE_SECONDS
from .snapshot import params_of
from .store import TrialStore

__all__ = ["Handout"]

# Draws in a row that may be invalid or repeats, which only samplers that ignore the space give.
MAX_DRAWS = 200

# A proposal that took longer may have been overtaken by others that it did not know of; then it is
# made anew, but not again and again: where many ask at once somebody is always faster.
QUICK_SECONDS = 0.05
MAX_OVERTAKEN = 2

_TAKEN = (TrialState.COMPLETE, TrialState.RUNNING)


class Handout:
    """Gives the trials of a store to this worker.

    Args:
        store: The trials.
        space: The search space.
    """

    def __init__(self, store: TrialStore, space: SearchSpace) -> None:
        self._store = store
        self._session = store.session
        self._space = space
        self._distributions = space.distributions
        self._drawing = threading.Lock()

    def next(self, verdict: Callable[[], Verdict] = lambda: "go") -> FrozenTrial | Verdict:
        """Returns a running trial of this worker: a queued one, else a new proposal.

        Args:
            verdict: Whether there may be one; called in a step, after lost trials were taken back.

        Returns:
            A trial, or the verdict if it is another than "go".

        Raises:
            SearchError: The sampler does not find a configuration that is valid and new.
        """
        draws = iter(range(MAX_DRAWS))
        try:
            while True:
                begun = self._begin(verdict)
                if not isinstance(begun, FrozenTrial) or begun.params:
                    return begun
                settled = self._give_params(begun, draws)
                if settled is not None:
                    return settled
        finally:
            self._session.rest()

    def _begin(self, verdict: Callable[[], Verdict]) -> FrozenTrial | Verdict:
        """Returns a trial of this worker; it has parameters if they were queued."""
        held: list[int] = []
        self._session.read()
        suspects = self._store.suspects()

        def begin() -> FrozenTrial | Verdict:
            self._store.reap(suspects)
            found = verdict()
            if found != "go":
                return found
            self._refuse_exhausted()
            trial = self._of_queue() or self._session.rows.add(
                self._session.connection, TrialState.RUNNING, {"owner": self._store.owner()}
            )
            held.append(trial.number)
            self._store.pulse.hold(trial.number)
            return trial

        def undo() -> None:
            while held:
                self._store.pulse.release(held.pop())

        return self._session.step(begin, undo=undo)

    def _refuse_exhausted(self) -> None:
        snapshot = self._session.snapshot
        states = (*_TAKEN, TrialState.FAIL)
        if snapshot.count(*states) < self._space.num_points or snapshot.count(TrialState.WAITING):
            return
        names = self._space.dimensions.keys()
        found = [
            params for params in map(params_of, snapshot.of(*states)) if params.keys() == names
        ]
        if len({frozenset(params.items()) for params in found}) >= self._space.num_points:
            raise SearchError(
                f"All {self._space.num_points} points of the space are tried or being tried; ask "
                f"for fewer trials, or give the space more choices."
            )

    def _of_queue(self) -> FrozenTrial | None:
        """Returns the first trial of the queue that repeats no other; None without any."""
        rows, connection = self._session.rows, self._session.connection
        for waiting in self._session.snapshot.of(TrialState.WAITING):
            trial = rows.begin(connection, waiting, {"owner": self._store.owner()})
            queued = params_of(trial)
            try:
                self._space.encode_params(queued)
            except ConfigError:  # queued by other means; a sampler may complete it
                return trial
            # A failed configuration comes again, as somebody queued it.
            twin = self._session.snapshot.twin(queued, _TAKEN, trial.number)
            if twin is None:
                params = {name: queued[name] for name in self._distributions}
                return rows.set_params(connection, trial, params, self._distributions)
            self._store.end(trial.number, TrialState.FAIL, f"repeats trial {twin}")
        return None

    def _give_params(self, trial: FrozenTrial, draws: Iterator[int]) -> FrozenTrial | None:
        """Returns a trial with parameters that no other has; None if it had to end without."""
        try:
            return self._settled(trial, draws)
        except BaseException as error:
            reason = f"no proposal: {error!r}"
            self._session.step(
                lambda: self._store.hand_back(trial.number, reason), patience=LAST_PATIENCE_SECONDS
            )
            raise

    def _settled(self, trial: FrozenTrial, draws: Iterator[int]) -> FrozenTrial | None:
        is_queued = bool(trial.system_attrs.get("fixed_params"))
        # A configuration that failed or was stopped comes again only if somebody queued it.
        taken = _TAKEN if is_queued else (*_TAKEN, TrialState.FAIL, TrialState.PRUNED)
        for _ in draws:
            with self._drawing:
                drawn, refusal = self._propose(trial)
            twin = self._session.snapshot.twin(drawn.params, taken, trial.number)
            if refusal is not None:
                # Not a failure: samplers take it for a bad configuration.
                self._close(drawn, TrialState.PRUNED, refusal)
                return None
            if twin is None:
                settled = self._settle(drawn, taken)
                if settled is not None:
                    return settled if settled.params else None
            elif is_queued:
                self._close(drawn, TrialState.FAIL, f"repeats trial {twin}")
                return None
        raise SearchError(
            f"No valid and new configuration in {MAX_DRAWS} draws of "
            f"{type(self._session.study.sampler).__name__}; the space has {self._space.num_points} "
            f"points: use BayesianSampler, which knows them, or fewer trials."
        )

    def _propose(self, trial: FrozenTrial) -> tuple[FrozenTrial, str | None]:
        """Returns a trial with proposed parameters, and why they are invalid, if they are."""
        desk = self._store.desk
        for _ in range(1 + MAX_OVERTAKEN):
            known, begin = self._session.snapshot.num_configurations(), time.monotonic()
            try:
                drawn = desk.draw(self._session.snapshot, trial, self._space.suggest)
            except optuna.TrialPruned as refused:
                return desk.drawn, str(refused)
            if time.monotonic() - begin < QUICK_SECONDS:
                break
            self._session.read()
            if self._session.snapshot.num_configurations() == known:
                break
        return drawn, None

    def _settle(self, drawn: FrozenTrial, taken: Sequence[TrialState]) -> FrozenTrial | None:
        """Returns the trial with its parameters, or ended by others; None if somebody has them."""

        def settle() -> FrozenTrial | None:
            trial = self._store.trial(drawn.number)
            if trial.state != TrialState.RUNNING:
                return trial
            if self._session.snapshot.twin(drawn.params, taken, trial.number) is not None:
                return None
            return self._write(trial, drawn)

        return self._session.step(settle)

    def _close(self, drawn: FrozenTrial, state: TrialState, reason: str) -> None:
        """Ends a trial with parameters that cannot be used."""

        def close() -> None:
            trial = self._store.trial(drawn.number)
            if trial.state == TrialState.RUNNING:
                self._write(trial, drawn)
            self._store.end(trial.number, state, reason)

        self._session.step(close)

    def _write(self, trial: FrozenTrial, drawn: FrozenTrial) -> FrozenTrial:
        """Gives the stored trial what was drawn for it, the notes of the sampler included."""
        rows, connection = self._session.rows, self._session.connection
        new = {k: v for k, v in drawn.system_attrs.items() if k not in trial.system_attrs}
        trial = rows.set_attributes(connection, trial, {}, new)
        return rows.set_params(connection, trial, drawn.params, drawn.distributions)
