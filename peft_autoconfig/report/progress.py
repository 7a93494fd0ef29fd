"""How a search went: the area under its front, and the time it took, trial by trial.

Area is measured as the search does: score against log10 of the parameters, by the same function.

Imports `bayes` and `findings`; imported by `figures` and `report`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

import torch

from ..bayes.pareto import hypervolume
from .findings import Findings, Trial

__all__ = ["Cost", "Step", "cost_of", "failure_reasons", "steps_of"]

ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """The state of a search after one more finished trial.

    Attributes:
        trial: The trial that finished.
        share: Area that the front dominates by then, as a share of what it does now, [0, 1].
        gained: Whether this trial made it larger.
    """

    trial: Trial
    share: float
    gained: bool


@dataclass(frozen=True)
class Cost:
    """The time that a run has taken, in seconds.

    Attributes:
        training: Of all complete trials and those stopped early together.
        median: Of a complete trial.
        lost: Of trials that came to nothing, from their start to their end.
        elapsed: From the first start to the last end of any trial; pauses count.
        repeats: Of the trainings over new seeds.
    """

    training: float
    median: float
    lost: float
    elapsed: float
    repeats: float


def steps_of(findings: Findings) -> list[Step]:
    """Returns the states of a search, one for each complete trial, in the order they finished.

    The area lies above the lowest score of the run and below the largest count of the space.
    """
    done = [t for t in findings.trials if t.record.state == "COMPLETE" and t.record.config]
    done.sort(key=lambda trial: (trial.ended is None, trial.ended, trial.record.number))
    scores = torch.tensor([t.record.score for t in done], dtype=torch.float64)
    costs = torch.tensor([t.record.num_params for t in done], dtype=torch.float64).log10()
    if not len(done):
        return []
    reference = (float(scores.min()), math.log10(findings.space.params_range[1]) + 1e-9)
    areas = [hypervolume(scores[:n], costs[:n], reference) for n in range(1, len(done) + 1)]
    # The same area, summed in another order, differs in its last digits.
    areas = list(accumulate(areas, max))
    final = areas[-1] or 1.0
    before = [0.0, *areas[:-1]]
    return [
        Step(trial, area / final, area - earlier > ROUNDING * final)
        for trial, area, earlier in zip(done, areas, before, strict=True)
    ]


def cost_of(findings: Findings) -> Cost:
    """Returns the time that a run has taken."""
    seconds = [record.seconds or 0.0 for record in findings.complete]
    stopped = [record.seconds or 0.0 for record in findings.stopped]
    starts = [t.started for t in findings.trials if t.started]
    ends = [t.ended for t in findings.trials if t.ended]
    return Cost(
        training=sum(seconds) + sum(stopped),
        median=median(seconds) if seconds else 0.0,
        lost=sum(_span(trial) for trial in _refused(findings)),
        elapsed=(max(ends) - min(starts)).total_seconds() if starts and ends else 0.0,
        repeats=sum(repeat.seconds for repeat in findings.repeats),
    )


def failure_reasons(findings: Findings) -> list[tuple[str, list[int]]]:
    """Returns the reasons why trials failed or were refused, with their trials, frequent first."""
    failed = _refused(findings)
    counts = Counter(_reason(trial) for trial in failed)
    return [
        (reason, [t.record.number for t in failed if _reason(t) == reason])
        for reason, _ in counts.most_common()
    ]


def _refused(findings: Findings) -> Sequence[Trial]:
    return [
        trial
        for trial in findings.trials
        if trial.record.state in ("FAIL", "PRUNED") and not trial.record.is_stopped
    ]


def _reason(trial: Trial) -> str:
    return str(trial.record.reason or "no reason was stored")


def _span(trial: Trial) -> float:
    if trial.started is None or trial.ended is None:
        return 0.0
    return (trial.ended - trial.started).total_seconds()
