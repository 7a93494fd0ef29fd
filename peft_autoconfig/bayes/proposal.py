"""From what is known to the next point: fit, fantasise, and search the lattice.

The top of this package: `sampler` calls `propose`, which fits a model and lets `choose` search by
it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .acquisition import LogNoisyEHVI
from .lattice import Lattice, distinct
from .pareto import is_non_dominated
from .surrogate import FIRST_SCORES, Surrogate, fit_surrogate

__all__ = ["PLAIN_FLOOR", "Knowledge", "choose", "propose"]

NUM_SAMPLES = 16  # draws of the front
NUM_RESTARTS = 8  # points that the local search carries along
MAX_STEPS = 10
MAX_MOVES = 2000  # looked at in one step, at random where there are more: all up to 24 layers
MAX_NEIGHBORS = 500  # of the front's points, at random where there are more
PLAIN_EVERY = 4  # proposals of which one is by a model without a trend
PLAIN_FLOOR = 0.25  # quantile


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

    The model knows what adapters are like (`trend`), but every fourth time it is one that takes
    nothing for granted: what the first leaves out the second comes upon, and both together are
    ahead of either on tables of real trainings (benchmarks/LOG.md).

    Args:
        lattice: The points that may be evaluated.
        known: What is known so far.
        candidates: ``k x d`` points from all over the lattice to start from, at least one unseen.
        generator: Source of the draws.

    Raises:
        ValueError: If all candidates have been seen.
    """
    number = len(known.train_Y) + len(known.X_pending)
    layout = None if number % PLAIN_EVERY == 0 else lattice.layout
    surrogate = fit_surrogate(lattice.inputs(known.train_X), known.train_Y, layout=layout)
    return choose(lattice, known, surrogate, candidates, generator)


def choose(
    lattice: Lattice,
    known: Knowledge,
    surrogate: Surrogate,
    candidates: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Returns the unseen point ``d`` that promises the largest gain by a model of the score.

    Area is measured from the dearest point there is, and from a low one of the scores that the
    model believes of the first points. Both are defined from the first score on, which the nadir of
    the front is not; and later scores, most of them near the front, do not lift the floor above
    what is cheap. A model without a trend, to which next to no parameters may bring anything, would
    spend the search on the cheapest if the floor were the lowest.

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
    first, _ = surrogate.posterior(lattice.inputs(known.train_X[:FIRST_SCORES]))
    floor = first.quantile(PLAIN_FLOOR) if surrogate.model.trend is None else first.min()
    reference = (surrogate.standardize(float(floor)), lattice.max_cost)
    fantasies = surrogate.fantasize(lattice.inputs(baseline), NUM_SAMPLES, generator)
    acquisition = LogNoisyEHVI(fantasies, costs, reference)
    front = baseline[is_non_dominated(mean, costs)]
    near = lattice.neighbors(front, limit=MAX_NEIGHBORS, generator=generator)
    starts = lattice.unseen(torch.cat([candidates, near]), known.seen)
    return _climb(acquisition, lattice, starts, known.seen, generator)


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
