"""The lattice of points that may be evaluated: levels in [0, 1], known costs, neighbours.

A point is a vector of `d` levels; what else is known of it, its cost and the inputs that the model
sees, comes from two functions of whoever builds the lattice. Imports `trend`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .trend import Layout

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
        layout: Which model inputs are what; None if the model is to know nothing of that.
    """

    num_levels: tuple[int, ...]
    cost: Callable[[Tensor], Tensor]
    inputs: Callable[[Tensor], Tensor]
    max_cost: float
    interchangeable: range = range(0)
    layout: Layout | None = None

    def neighbors(
        self, X: Tensor, *, limit: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns the allowed points ``m x d`` that differ from one of ``n x d`` by one move.

        A move gives one dimension any other level, or swaps two interchangeable dimensions.

        Args:
            X: ``n x d``.
            limit: Moves at most, drawn evenly where there are more; None for all.
            generator: Source of the draws.
        """
        rows, i, j, level_i, level_j = self._moves(X)
        if limit is not None and len(rows) > limit:
            kept = torch.randperm(len(rows), generator=generator)[:limit]
            rows, i, j, level_i, level_j = (part[kept] for part in (rows, i, j, level_i, level_j))
        moved = X[rows]
        moved[torch.arange(len(rows)), i] = level_i
        moved[torch.arange(len(rows)), j] = level_j
        moved = distinct(moved)
        return moved[self.cost(moved).isfinite()]

    def _moves(self, X: Tensor) -> tuple[Tensor, ...]:
        """Returns, for each move, its row of X, two dimensions, and what they become.

        A change of one dimension names it twice.
        """
        levels = [torch.arange(n, dtype=X.dtype) / max(n - 1, 1) for n in self.num_levels]
        dimension = torch.cat([torch.full((len(to),), i) for i, to in enumerate(levels)])
        target = torch.cat(levels)
        rows, choice = ((X[:, dimension] - target).abs() > 1e-9).nonzero().T
        changed = rows, dimension[choice], dimension[choice], target[choice], target[choice]
        pairs = torch.combinations(torch.tensor([*self.interchangeable], dtype=torch.long))
        rows, pair = (X[:, pairs[:, 0]] != X[:, pairs[:, 1]]).nonzero().T
        i, j = pairs[pair].T
        swapped = rows, i, j, X[rows, j], X[rows, i]
        return tuple(torch.cat(parts) for parts in zip(changed, swapped, strict=True))

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
