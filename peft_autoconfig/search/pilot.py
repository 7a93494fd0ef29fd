"""The pilot: whether a task is searchable at the fidelity that its training has.

A search learns nothing where every configuration ends at the majority class. So the largest and a
middle configuration go first; here it is said which, and what their results mean.

Imports `space`, `trial` and `tuner`; imported by `search`.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ..space import SearchSpace
from ..tuner.config import AutoPEFTConfig
from .trial import TrialRecord

__all__ = ["leaves_baseline", "pilot_points", "refusal", "states_of"]

Point = tuple[AutoPEFTConfig, float | None]

# Seeds alone move the loss by up to 1 % where nothing is learned (mrpc, 1,024 examples x 2).
LOSS_MARGIN = 0.02


def pilot_points(space: SearchSpace) -> list[Point]:
    """Returns a middle configuration and the largest, each at up to three learning rates.

    The middle rate comes first, then the largest, which leaves the majority class soonest; and the
    middle configuration first, since the largest takes many times as long to train.
    """
    rates = space.learning_rates or (None,)
    chosen = dict.fromkeys([rates[len(rates) // 2], rates[-1], rates[0]])
    return [(config, rate) for rate in chosen for config in _configs(space)]


def leaves_baseline(
    records: Iterable[TrialRecord],
    baseline_score: float,
    margin: float,
    baseline_loss: float | None = None,
) -> bool:
    """Returns whether any complete trial is better than the constant predictor.

    Args:
        records: Trials.
        baseline_score: Score without training: that of a constant, or of the model as it was.
        margin: How far a score must exceed it.
        baseline_loss: Loss of the constant predictor; a loss must fall short of it by 2 %.
    """
    return any(
        _exceeds(record.score, baseline_score + margin)
        or (
            baseline_loss is not None
            and record.loss is not None
            and record.loss < baseline_loss - LOSS_MARGIN * abs(baseline_loss)
        )
        for record in records
        if record.state == "COMPLETE"
    )


def refusal(records: Iterable[TrialRecord], points: Sequence[Point], baseline_score: float) -> str:
    """Returns why a search would be in vain, and what to do."""
    mine = [r for r in records if (r.config, r.learning_rate) in points]
    scores = [record.score for record in mine if record.score is not None]
    if not scores:
        reasons = sorted({str(record.reason) for record in mine if record.state == "FAIL"})
        return f"Every trial of the pilot failed: {'; '.join(reasons)}. Mend the objective first."
    return (
        f"Not searchable: the largest and a middle configuration, at learning rates "
        f"{sorted({record.learning_rate for record in mine if record.learning_rate})}, score at "
        f"best {max(scores):.4g}, where no training gives {baseline_score:.4g}, so that the "
        f"search could not tell configurations apart. Train longer (more steps or epochs), give "
        f"larger learning rates, or more training data."
    )


def states_of(
    records: Iterable[TrialRecord], config: AutoPEFTConfig, learning_rate: float | None
) -> set[str]:
    """Returns the states of the trials of a configuration at a rate."""
    return {
        record.state
        for record in records
        if record.config == config and record.learning_rate == learning_rate
    }


def _configs(space: SearchSpace) -> list[AutoPEFTConfig]:
    """Returns a middle valid configuration and a large one, with all parts in all layers if it can.

    Where the budget is too tight for that, they are the largest and the median of a sample.
    """
    even = np.ones((8, len(space.dimensions)))
    even[:, : len(space.size_names)] = np.linspace(1, 1 / 8, 8)[:, None]
    for X in (even, space.sample_stratified(256, seed=0)):
        counts = space.count_params(X)
        fits = (counts > 0) & (counts <= (space.max_params or counts.max()))
        if fits.any():
            break
    X = X[fits][np.argsort(-counts[fits], kind="stable")]
    return [space.decode(x)[0] for x in (X[len(X) // 2], X[0])]


def _exceeds(score: float | None, level: float) -> bool:
    return score is not None and score > level
