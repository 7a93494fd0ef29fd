"""The front of two objectives: who is on it and how large it is.

Scores are maximised, costs minimised. A point with a score or cost that is not finite (a failed
trial) is on no front and counts for nothing. Plain torch; imported by `acquisition` and by reports.
"""

import torch
from torch import Tensor

__all__ = ["hypervolume", "is_non_dominated", "staircase"]


def is_non_dominated(scores: Tensor, costs: Tensor) -> Tensor:
    """Returns the mask ``n`` of the points that no other point dominates.

    A point dominates another when it is at least as good in both objectives and better in one;
    points that tie in both therefore stand or fall together.

    Args:
        scores: ``n``, higher is better.
        costs: ``n``, lower is better.
    """
    finite = scores.isfinite() & costs.isfinite()
    no_worse = (scores[:, None] >= scores) & (costs[:, None] <= costs)
    better = (scores[:, None] > scores) | (costs[:, None] < costs)
    dominates = no_worse & better & finite[:, None]
    return finite & ~dominates.any(dim=0)


def staircase(scores: Tensor, costs: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Returns the best score that is to be had at each cost, as a step function.

    Args:
        scores: ``... x n``; a batch shares the costs (samples of the same points).
        costs: ``n``.
        floor: The score below which nothing counts.

    Returns:
        Costs ``n`` in ascending order, and ``... x (n + 1)`` levels: the floor, which holds below
        the first cost, and then the best score at or below each cost.
    """
    costs, order = costs.sort(stable=True)
    best = scores[..., order].clamp_min(floor).cummax(dim=-1).values
    start = best.new_full((*best.shape[:-1], 1), floor)
    return costs, torch.cat([start, best], dim=-1)


def hypervolume(scores: Tensor, costs: Tensor, reference: tuple[float, float]) -> float:
    """Returns the area that the points dominate within a reference point, at least 0.

    Args:
        scores: ``n``.
        costs: ``n``, on the scale on which area is meant (log10 of parameters, say).
        reference: Score and cost; only what is better than it in both counts.
    """
    floor, ceiling = reference
    counts = scores.isfinite() & costs.isfinite() & (costs < ceiling)
    edges, levels = staircase(scores[counts], costs[counts], floor)
    widths = torch.cat([edges, edges.new_tensor([ceiling])]).diff()
    return float((widths * (levels[1:] - floor)).sum())
