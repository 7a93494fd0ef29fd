"""The lattice of points that may be evaluated: levels in [0, 1], known costs, neighbours.

A point is a vector of `d` levels; what else is known of it, its cost and the inputs that the model
sees, comes from two functions of whoever builds the lattice. Plain torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lattice", "distinct"]


@dataclass(frozen=True)
class Lattice:
    """What may be evaluated.

    Attributes:
        num_levels: Number of evenly spaced levels of every dimension, ``d``.
        cost: From points ``n x d`` to costs ``n``; infinity where a point is not allowed.
        inputs: From points ``n x d`` to model inputs ``n x p``.
        max_cost: Cost of the dearest point: the reference against which area is measured.
        interchangeable: The dimensions between which values may be swapped, such as the layers of
            a mask; a swap often keeps the cost where a single change would not.
    """

    num_levels: tuple[int, ...]
    cost: Callable[[Tensor], Tensor]
    inputs: Callable[[Tensor], Tensor]
    max_cost: float
    interchangeable: range = range(0)

    def neighbors(self, X: Tensor) -> Tensor:
        """Returns the allowed points ``m x d`` that differ from one of ``n x d`` by one move.

        A move gives one dimension any other level, or swaps two interchangeable dimensions.
        """
        moved = distinct(torch.cat([self._changed(X), self._swapped(X)]))
        return moved[self.cost(moved).isfinite()]

    def _changed(self, X: Tensor) -> Tensor:
        changed = []
        for dimension, count in enumerate(self.num_levels):
            for level in torch.arange(count, dtype=X.dtype) / max(count - 1, 1):
                rows = X[(X[:, dimension] - level).abs() > 1e-9].clone()
                rows[:, dimension] = level
                changed.append(rows)
        return torch.cat(changed)

    def _swapped(self, X: Tensor) -> Tensor:
        swapped = [X[:0]]
        for i in self.interchangeable:
            for j in self.interchangeable[: i - self.interchangeable.start]:
                rows = X[X[:, i] != X[:, j]].clone()
                rows[:, [i, j]] = rows[:, [j, i]]
                swapped.append(rows)
        return torch.cat(swapped)

    def keys(self, X: Tensor) -> list[tuple[int, ...]]:
        """Returns what tells points ``n x d`` apart: the number of the level in every dimension."""
        scale = torch.tensor(self.num_levels, dtype=X.dtype) - 1
        return [tuple(row) for row in (X * scale).round().long().tolist()]

    def unseen(self, X: Tensor, seen: set[tuple[int, ...]]) -> Tensor:
        """Returns the points among ``n x d``, each once, whose key is not in a set."""
        X = distinct(X)
        keep = [key not in seen for key in self.keys(X)]
        return X[torch.tensor(keep, dtype=torch.bool)]


def distinct(X: Tensor) -> Tensor:
    """Returns the different rows of ``n x d``, in lexicographic order."""
    rows: Tensor = torch.unique(X, dim=0)
    return rows
