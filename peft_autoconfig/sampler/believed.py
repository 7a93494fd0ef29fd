"""The front of a study by what a model believes, not by scores that luck has lifted.

Of many noisy scores the best ones are mostly those that noise favoured. The model of the score
weighs each against all others, so its front is nearer to the true one, and its doubts say which
members deserve another seed.

Imports `bayes`, `space`, `history` and `lattice`; imported by whoever reads a study.
"""

import math
from dataclasses import dataclass

import torch
from optuna.study import Study
from optuna.trial import TrialState
from torch import Tensor

from ..bayes.pareto import is_non_dominated
from ..bayes.surrogate import fit_surrogate
from ..space import SearchSpace
from .history import read_history, score_sign
from .lattice import lattice_of, tensor_of

__all__ = ["BelievedTrial", "believed_front"]

# A model of 500 scores takes half a second, and the time grows with the cube of their number.
MOST_MODELLED = 1000


@dataclass(frozen=True)
class BelievedTrial:
    """A trial that the model believes to be on the front.

    Attributes:
        number: Number of the trial.
        num_params: Parameters of its configuration.
        score: Posterior mean of its noise-free score, the way round that the study has it.
        deviation: Posterior standard deviation of that score. From few and noisy scores the model
            may take all differences for noise, and this is then too small.
        confidence: Probability that its score truly is better than that of the member before,
            which has fewer parameters; 1 for the first.
    """

    number: int
    num_params: int
    score: float
    deviation: float
    confidence: float


def believed_front(study: Study, space: SearchSpace) -> list[BelievedTrial]:
    """Returns the front by posterior means, fewest parameters first; empty without a score.

    Where a configuration was tried more than once, or at several learning rates, the best-believed
    of its trials stands for it. Pruned trials inform the model and are on no front. Of more than
    1,000 scores the model sees those that are nearest the front.

    Args:
        study: A study of two objectives, the score and the parameters to be minimised.
        space: The space that it searches.

    Raises:
        SearchError: If the study's directions are not two, the second of them minimize.
    """
    lattice = lattice_of(space)
    history = read_history(study, space, lambda x: lattice.keys(torch.as_tensor(x)[None])[0])
    if not history.scores:
        return []
    X = tensor_of(history.evaluated, space)
    scores = torch.tensor(history.scores, dtype=torch.float64)
    kept = _nearest(scores, lattice.cost(X))
    X, scores, numbers = X[kept], scores[kept], [history.numbers[i] for i in kept.tolist()]
    surrogate = fit_surrogate(lattice.inputs(X), scores, layout=lattice.layout)
    mean, covariance = surrogate.joint_posterior(lattice.inputs(X))
    complete = {trial.number for trial in study.get_trials(False, (TrialState.COMPLETE,))}
    hidden = torch.tensor([number not in complete for number in numbers])
    order = _front(mean.masked_fill(hidden, torch.nan), lattice.cost(X))
    counts = space.count_params(X.numpy())
    sign = score_sign(study)
    return [
        BelievedTrial(
            number=numbers[i],
            num_params=int(counts[i]),
            score=sign * float(mean[i]),
            deviation=math.sqrt(max(float(covariance[i, i]), 0.0)),
            confidence=_confidence(mean, covariance, i, before),
        )
        for i, before in zip(order, [None, *order], strict=False)
    ]


def _nearest(scores: Tensor, costs: Tensor) -> Tensor:
    """Returns the indices, in order, of the scores that a model sees: front after front of them."""
    if len(scores) <= MOST_MODELLED:
        return torch.arange(len(scores))
    left = scores.argsort(descending=True, stable=True)
    left = left[costs[left].argsort(stable=True)]  # the cheapest first, of equals the best
    kept = left[:0]
    while len(kept) < MOST_MODELLED:
        best = scores[left].cummax(dim=0).values
        is_member = scores[left] > torch.cat([best.new_tensor([-math.inf]), best[:-1]])
        kept, left = torch.cat([kept, left[is_member]]), left[~is_member]
    return kept[:MOST_MODELLED].sort().values


def _front(mean: Tensor, costs: Tensor) -> list[int]:
    """Returns the indices of the non-dominated points by ascending cost; of equals the first."""
    members = is_non_dominated(mean, costs).nonzero().flatten().tolist()
    by_cost = {float(costs[i]): i for i in reversed(members)}
    return [by_cost[cost] for cost in sorted(by_cost)]


def _confidence(mean: Tensor, covariance: Tensor, i: int, before: int | None) -> float:
    if before is None:
        return 1.0
    variance = covariance[i, i] + covariance[before, before] - 2 * covariance[i, before]
    z = (mean[i] - mean[before]) / variance.clamp_min(1e-12).sqrt()
    return float(torch.special.ndtr(z))
