"""From what is known to the next point: fit, fantasise, and search the lattice.

The top of this package; `sampler` calls `propose` to choose a point, or `choose` where it has a
model of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .acquisition import LogNoisyEHVI
from .gaussian_process import Deviation
from .lattice import Lattice, distinct
from .pareto import is_non_dominated
from .surrogate import Surrogate, fit_surrogate

__all__ = ["Knowledge", "choose", "prior_deviation", "propose"]

NUM_SAMPLES = 16  # draws of the front
NUM_RESTARTS = 8  # points that the local search carries along
MAX_STEPS = 10
MAX_MOVES = 2000  # looked at in one step, at random where there are more: all up to 24 layers
MAX_NEIGHBORS = 500  # of the front's points, at random where there are more
FLOOR_QUANTILE, FLOOR_SCORES = 0.25, 12  # of so many scores, the first ones
NARROW, WIDE = 12, 48  # scores from which and up to which the cheap are expected to differ less
NARROWEST = 0.1


@dataclass(frozen=True)
class Knowledge:
    """What was evaluated, what is being evaluated, and what must not be evaluated.

    Attributes:
        train_X: ``n x d`` points with a score, n at least 1, in the order of their trials.
        train_Y: ``n`` finite scores, higher is better.
        X_pending: ``m x d`` points whose score is still to come.
        seen: Keys (`Lattice.keys`) of all points that may not be proposed again.
    """

    train_X: Tensor
    train_Y: Tensor
    X_pending: Tensor
    seen: set[tuple[int, ...]]


def propose(
    lattice: Lattice, known: Knowledge, candidates: Tensor, generator: torch.Generator
) -> Tensor:
    """Returns the unseen point ``d`` that promises the largest gain of hypervolume.

    Args:
        lattice: The points that may be evaluated.
        known: What is known so far.
        candidates: ``k x d`` points from all over the lattice to start from, at least one unseen.
        generator: Source of the draws.

    Raises:
        ValueError: If all candidates have been seen.
    """
    surrogate = fit_surrogate(
        lattice.inputs(known.train_X),
        known.train_Y,
        deviation=prior_deviation(lattice.cost_input, len(known.train_Y)),
    )
    return choose(lattice, known, surrogate, candidates, generator)


def choose(
    lattice: Lattice,
    known: Knowledge,
    surrogate: Surrogate,
    candidates: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Returns the unseen point ``d`` that promises the largest gain by a model of the score.

    Area is measured from the dearest point there is, and from the lower quartile of what the model
    believes of the first scores: much of a space stays at chance, where no gain matters. Both are
    defined from the first score on, which the nadir of the front is not; and later scores, most of
    them near the front, do not lift the floor above what is cheap.

    Args:
        lattice: The points that may be evaluated.
        known: What is known so far.
        surrogate: The model.
        candidates: ``k x d`` points from all over the lattice to start from, at least one unseen.
        generator: Source of the draws.

    Raises:
        ValueError: If all candidates have been seen.
    """
    baseline = distinct(torch.cat([known.train_X, known.X_pending]))
    costs = lattice.cost(baseline)
    mean, _ = surrogate.posterior(lattice.inputs(baseline))
    first, _ = surrogate.posterior(lattice.inputs(known.train_X[:FLOOR_SCORES]))
    reference = (surrogate.standardize(float(first.quantile(FLOOR_QUANTILE))), lattice.max_cost)
    fantasies = surrogate.fantasize(lattice.inputs(baseline), NUM_SAMPLES, generator)
    acquisition = LogNoisyEHVI(fantasies, costs, reference)
    front = baseline[is_non_dominated(mean, costs)]
    near = lattice.neighbors(front, limit=MAX_NEIGHBORS, generator=generator)
    starts = lattice.unseen(torch.cat([candidates, near]), known.seen)
    return _climb(acquisition, lattice, starts, known.seen, generator)


def prior_deviation(cost_input: int | None, num_scores: int) -> Deviation | None:
    """Returns how far scores are expected to spread, by cost; None for the same everywhere.

    With next to no parameters every configuration is close to the frozen base, so the cheap differ
    less than the dear. While scores are few, a model that does not know this has many of the
    cheapest tried. From the 12th score to the 48th the assumption is given up by degrees: held for
    good it keeps the search from good cheap configurations (benchmarks/LOG.md).

    Args:
        cost_input: The model input that is the cost, scaled to [0, 1]; None if there is none.
        num_scores: Scores so far.
    """
    progress = max(0.0, (num_scores - NARROW) / (WIDE - NARROW))
    cheapest = NARROWEST + (1 - NARROWEST) * progress
    if cost_input is None or cheapest >= 1:
        return None
    return lambda X: cheapest + (1 - cheapest) * X[:, cost_input].clamp(0, 1)


def _climb(
    acquisition: LogNoisyEHVI,
    lattice: Lattice,
    starts: Tensor,
    seen: set[tuple[int, ...]],
    generator: torch.Generator,
) -> Tensor:
    """Returns the best point found from the best starts by moving to the best neighbour."""
    if not len(starts):
        raise ValueError("expected a candidate that has not been seen, got none")
    values = acquisition(lattice.inputs(starts), lattice.cost(starts))
    best = values.topk(min(NUM_RESTARTS, len(starts))).indices
    points, values = starts[best], values[best]
    is_new = torch.ones(len(points), dtype=torch.bool)  # its moves are yet to be looked at
    for _ in range(MAX_STEPS):
        moves = lattice.neighbors(points[is_new], limit=MAX_MOVES, generator=generator)
        moves = lattice.unseen(moves, seen)
        if not len(moves):
            break
        gains = acquisition(lattice.inputs(moves), lattice.cost(moves))
        pool, worth = torch.cat([points, moves]), torch.cat([values, gains])
        top = worth.topk(len(points)).indices
        if worth[top].max() <= values.max():
            break
        is_new = top >= len(points)
        points, values = pool[top], worth[top]
    return points[values.argmax()]
