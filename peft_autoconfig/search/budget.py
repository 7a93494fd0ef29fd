"""When a search ends: its budget, counted over all workers, and what is spent of it.

Imports `errors`, `rungs`, `snapshot` and `worker`; imported by `handout` and `search`.
"""

from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError
from .rungs import is_stopped
from .snapshot import Snapshot
from .worker import BEAT_SECONDS

__all__ = ["Budget", "Verdict", "training_seconds"]

Verdict = Literal["go", "wait", "end"]


@dataclass(frozen=True)
class Budget:
    """What a search may spend; the first limit that is reached ends it.

    Attributes:
        n_trials: Trials that are done, complete or stopped at a rung, at least 1.
        max_hours: Hours since the first trial of the run began, pauses included, by the clock of
            the store; no trial begins later. None for no limit.
        max_training_hours: Hours of training, summed over trials and workers. A trial begins only
            if it fits in, at the mean cost of those that are done, beside those that run; so
            without any of them each worker begins one. None for no limit.
        retries: How often a configuration is tried again whose objective raised, at least 0.

    Raises:
        ConfigError: A limit is no number, or too small.
    """

    n_trials: int
    max_hours: float | None = None
    max_training_hours: float | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_trials", 1), ("retries", 0)):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < least:
                raise ConfigError(f"{name} must be an int of at least {least}, got {count!r}.")
        for name in ("max_hours", "max_training_hours"):
            hours = getattr(self, name)
            # `not >` also refuses what is no number
            if hours is not None and (isinstance(hours, bool) or not hours > 0):
                raise ConfigError(f"{name} must be above 0, or None, got {hours!r}.")

    def refuse_more_than(self, num_points: int) -> None:
        """Makes sure that a space has as many points as trials are wanted.

        Raises:
            ConfigError: It has not.
        """
        if self.n_trials > num_points:
            raise ConfigError(
                f"n_trials must be at most {num_points}, all points of the space, got "
                f"{self.n_trials}; ask for fewer trials, or give the space more choices."
            )

    def verdict(self, trials: Snapshot, seconds: float) -> Verdict:
        """Returns whether a worker may begin a trial now, has to wait for others, or is done.

        Args:
            trials: All trials of the run.
            seconds: Since the first of them began.
        """
        done, running = len(_done(trials)), trials.count(TrialState.RUNNING)
        if done >= self.n_trials:
            return "end"
        if self.max_hours is not None and seconds >= 3600 * self.max_hours:
            return "end"
        if self.max_training_hours is not None:
            if _cost_with_one_more(trials) > 3600 * self.max_training_hours:
                return "wait" if running else "end"
        # Should one that runs fail, there is work again.
        return "go" if done + running < self.n_trials else "wait"


def _cost_with_one_more(trials: Snapshot) -> float:
    """Returns the seconds of training when all that run are through, and one more."""
    spent = sum(map(training_seconds, trials.all()))
    done = [training_seconds(trial) for trial in _done(trials)]
    mean = sum(done) / len(done) if done else 0.0
    under_way = [training_seconds(trial) for trial in trials.of(TrialState.RUNNING)]
    return spent + sum(max(0.0, mean - already) for already in under_way) + mean


def _done(trials: Snapshot) -> list[FrozenTrial]:
    """Returns the trials of those that were wanted: complete, or stopped at a rung."""
    stopped = [trial for trial in trials.of(TrialState.PRUNED) if is_stopped(trial)]
    return [*trials.of(TrialState.COMPLETE), *stopped]


def training_seconds(trial: FrozenTrial) -> float:
    """Returns how long a trial was trained, as its worker measured it.

    Of a trial that runs, or whose worker died, the signs of life tell: a minute each.
    """
    attributes = trial.user_attrs
    return float(attributes.get("seconds", BEAT_SECONDS * attributes.get("beat", 0)))
