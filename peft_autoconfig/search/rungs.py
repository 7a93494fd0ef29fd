"""Rungs: where a training tells how it stands, and is stopped if it cannot reach the front.

What a configuration costs is known exactly before it is trained, so the score that it must beat is
known too: the best one with no more parameters. Whether it still can is judged by the trials of the
same run that were trained to the end. Of those that stood no better at the same rung, in score or
in loss, the best final score is the optimist's forecast for this one. The mean final score of those
that stood most alike is the sober forecast, which the sampler learns from.

`benchmarks/fidelity` has what this saves and loses.

Imports nothing of ours; imported by `evaluation`, `budget` and `trial`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

__all__ = ["Reporter", "Rung", "is_stopped", "rungs_of"]

# How far a forecast must fall short, in units of the score: as the pilot's margin.
MARGIN = 0.01
# Whole trainings that a forecast needs: with 8, simulated searches lost .02 of the mean score along
# the front (benchmarks/fidelity). And how many of them the sober forecast takes the mean of.
MIN_COMPLETE = 20
MOST_ALIKE = 3


@dataclass(frozen=True)
class Rung:
    """How a training stood on its way.

    Attributes:
        fraction: Share of the training that was done, in (0, 1).
        score: Score then, higher is better; perhaps on fewer examples than the final one.
        loss: Loss then, lower is better; None if unknown.
    """

    fraction: float
    score: float
    loss: float | None = None


class Reporter:
    """Takes how one training stands, and stops it if that is in vain.

    Args:
        trials: Returns all trials of the run.
        num_params: Parameters of the configuration in training.
    """

    def __init__(self, trials: Callable[[], Iterable[FrozenTrial]], num_params: int) -> None:
        self._trials = trials
        self._num_params = num_params
        self._rungs: dict[float, Rung] = {}
        self._forecast: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is stored with the trial: its rungs and, if it was stopped, the sober forecast."""
        rungs = [[r.fraction, r.score, r.loss] for r in self._rungs.values()]
        facts: dict[str, Any] = {"rungs": rungs} if rungs else {}
        return facts if self._forecast is None else facts | {"forecast": self._forecast}

    def __call__(self, fraction: float, score: float, loss: float | None = None) -> None:
        """Takes a rung.

        Args:
            fraction: Share of the training that is done, in (0, 1); the same ones in all trials.
            score: Score so far, higher is better.
            loss: Loss so far, lower is better; None if unknown.

        Raises:
            ValueError: The fraction is out of range.
            optuna.TrialPruned: The trial cannot reach the front; to be passed on.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"expected a fraction in (0, 1) of a report, got {fraction!r}")
        if not math.isfinite(score):
            return
        is_known = loss is not None and math.isfinite(loss)
        rung = Rung(float(fraction), float(score), loss if is_known else None)
        self._rungs[rung.fraction] = rung
        complete = [t for t in self._trials() if t.state == TrialState.COMPLETE]
        whole = list(_whole(complete, rung.fraction))
        goal = _goal(complete, self._num_params)
        if len(whole) < MIN_COMPLETE or goal is None:
            return
        hope = _hope(rung, whole)
        if hope + MARGIN < goal:
            self._forecast = _forecast(rung, whole)
            raise optuna.TrialPruned(
                f"stopped at {fraction:.0%} of its training with score {score:.4g}: none that "
                f"stood no better there came to more than {hope:.4g}, and {goal:.4g} is had with "
                f"no more parameters"
            )


def rungs_of(trial: FrozenTrial) -> tuple[Rung, ...]:
    """Returns the rungs that a finished trial passed, the first of them first."""
    stored = trial.user_attrs.get("rungs", ())
    return tuple(sorted((Rung(*values) for values in stored), key=lambda rung: rung.fraction))


def is_stopped(trial: FrozenTrial) -> bool:
    """Returns whether a trial was stopped at a rung, hence is done though it has no score."""
    return trial.state == TrialState.PRUNED and "rungs" in trial.user_attrs


def _whole(complete: Iterable[FrozenTrial], fraction: float) -> Iterable[tuple[Rung, float]]:
    """Yields rung and final score of the complete trials that passed the rung at a fraction."""
    for trial in complete:
        for rung in rungs_of(trial):
            if rung.fraction == fraction:
                yield rung, trial.values[0]


def _goal(complete: Iterable[FrozenTrial], num_params: int) -> float | None:
    """Returns the best score with no more parameters; None if there is none."""
    scores = [trial.values[0] for trial in complete if trial.values[1] <= num_params]
    return max(scores, default=None)


def _hope(rung: Rung, whole: Iterable[tuple[Rung, float]]) -> float:
    """Returns the best final score of those that stood no better, or what is reached already."""
    return max([rung.score, *(final for other, final in whole if _is_no_better(other, rung))])


def _is_no_better(other: Rung, rung: Rung) -> bool:
    if other.loss is not None and rung.loss is not None and other.loss >= rung.loss:
        return True
    return other.score <= rung.score


def _forecast(rung: Rung, whole: Iterable[tuple[Rung, float]]) -> float:
    """Returns the mean final score of the trials that stood most alike at the rung."""

    def distance(trial: tuple[Rung, float]) -> float:
        other, _ = trial
        if rung.loss is None or other.loss is None:
            return abs(other.score - rung.score)
        return abs(other.loss - rung.loss)

    return mean(final for _, final in sorted(whole, key=distance)[:MOST_ALIKE])
