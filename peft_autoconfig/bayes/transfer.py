"""A model of the score that has learned from earlier tasks: one Gaussian process over all of them.

Each earlier task is a further input, 1 for its points and 0 for those of all others. The length
scale of that input says how much the tasks have in common, and is fitted with the rest: a task that
disagrees ends up far away and tells little. Where tasks agree, what an earlier one saw counts
nearly as if it had been seen here, and all length scales are known from many more points.

Scores of tasks are on scales of their own; a line maps them. Imports `lattice`, `proposal` and
`surrogate`; imported by `sampler`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .lattice import Lattice
from .proposal import Knowledge
from .surrogate import Surrogate, fit_surrogate

__all__ = ["EarlierTask", "fit_with_earlier"]


@dataclass(frozen=True)
class EarlierTask:
    """What was evaluated of an earlier task, and a model of it alone.

    Attributes:
        X: ``n x d`` points, n at least 1.
        Y: ``n`` finite scores, higher is better.
        surrogate: A model of these scores.
    """

    X: Tensor
    Y: Tensor
    surrogate: Surrogate

    @classmethod
    def of(cls, lattice: Lattice, X: Tensor, Y: Tensor) -> "EarlierTask":
        """Returns a task with its model.

        Args:
            lattice: The points that may be evaluated.
            X: ``n x d`` points, n at least 1.
            Y: ``n`` finite scores, higher is better.
        """
        return cls(X, Y, fit_surrogate(lattice.inputs(X), Y, layout=lattice.layout))


def fit_with_earlier(
    lattice: Lattice, known: Knowledge, earlier: Sequence[EarlierTask]
) -> tuple[Surrogate, Lattice]:
    """Returns a model of the score given all tasks, and the lattice with the inputs that it sees.

    Args:
        lattice: The points that may be evaluated.
        known: What is known of the present task.
        earlier: Earlier tasks. One whose scores rise where those of this one fall is left out.
    """
    tasks = [(task.X, Y) for task in earlier if (Y := _as_here(lattice, known, task)) is not None]

    def inputs(X: Tensor, task: int | None = None) -> Tensor:
        marks = X.new_zeros(len(X), len(tasks))
        if task is not None:
            marks[:, task] = 1
        return torch.cat([lattice.inputs(X), marks], dim=1)

    surrogate = fit_surrogate(
        torch.cat([inputs(known.train_X), *(inputs(X, i) for i, (X, _) in enumerate(tasks))]),
        torch.cat([known.train_Y, *(Y for _, Y in tasks)]),
    )
    return surrogate, replace(lattice, inputs=inputs)


def _as_here(lattice: Lattice, known: Knowledge, task: EarlierTask) -> Tensor | None:
    """Returns the scores of an earlier task on the scale of this one; None if they run against it.

    The line between the scales is that of this task's scores over what the model of the earlier one
    says of the same points.
    """
    there, _ = task.surrogate.posterior(lattice.inputs(known.train_X))
    apart, here = there - there.mean(), known.train_Y - known.train_Y.mean()
    slope = (apart @ here) / (apart @ apart)
    scores = known.train_Y.mean() + slope * (task.Y - there.mean())
    return scores if slope > 0 and bool(scores.isfinite().all()) else None
