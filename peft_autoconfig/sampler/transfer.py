"""Bayesian optimisation that starts from what searches of other tasks found on the same base model.

Imports `bayes`, `space`, `bayesian`, `design`, `earlier`, `history` and `lattice`; imported by
`search`.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ..bayes.pareto import is_non_dominated
from ..bayes.surrogate import fit_surrogate
from ..space import SearchSpace
from .bayesian import BayesianSampler
from .design import NUM_STARTUP, startup_design
from .earlier import EarlierRun
from .history import Vector
from .lattice import tensor_of

__all__ = ["TransferSampler"]

MAX_POINTS = 128  # of one earlier run; more would make its model slow


class TransferSampler(BayesianSampler):
    """Proposes as `BayesianSampler` does, from a design that knows what earlier searches found.

    Half of the design makes way for members of their fronts, by the posterior means of a model of
    each. All that an earlier run is worth lies in these: a process over all tasks added nothing
    (benchmarks/LOG.md). For studies and errors see `UnrepeatedSampler`.

    Args:
        space: The space that the objective suggests from.
        earlier: What earlier searches found; without any this is `BayesianSampler`.
        seed: Seed of all draws, at least 0; None draws one.
        n_startup: Trials of the design, at least 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        earlier: Sequence[EarlierRun],
        seed: int | None = None,
        *,
        n_startup: int = NUM_STARTUP,
    ) -> None:
        super().__init__(space, seed, n_startup=n_startup)
        self._earlier = [run for run in earlier if len(run.scores)]

    @cached_property
    def _design(self) -> list[Vector]:
        """The usual design, in which members of earlier fronts stand for the nearest in cost."""
        design = startup_design(self._space, self._n_startup, self._seed)
        limit = max(self._n_startup // 2 // max(len(self._earlier), 1), 1)
        members = [x for run in self._earlier for x in self._front_of(run, limit)]
        costs = self._lattice.cost(tensor_of(design, self._space))
        left = [*range(len(design))]
        for x in members[: self._n_startup // 2]:
            cost = self._lattice.cost(tensor_of([x], self._space))
            nearest = min(left, key=lambda i: float((costs[i] - cost).abs()))
            left.remove(nearest)
            design[nearest] = x
        return design

    def _front_of(self, run: EarlierRun, limit: int) -> list[Vector]:
        """Returns at most so many members of a run's front, spread evenly, cheapest first."""
        generator = np.random.default_rng((self._seed, len(self._earlier)))
        kept = np.sort(generator.permutation(len(run.scores))[:MAX_POINTS])
        X, Y = tensor_of([*run.points[kept]], self._space), torch.from_numpy(run.scores[kept])
        inputs, costs = self._lattice.inputs(X), self._lattice.cost(X)
        mean, _ = fit_surrogate(inputs, Y, layout=self._lattice.layout).posterior(inputs)
        members = is_non_dominated(mean, costs).nonzero().flatten()
        members = members[costs[members].argsort(stable=True)]
        places = np.unique(np.linspace(0, len(members) - 1, min(limit, len(members))).round())
        return [X[members[int(place)]].numpy() for place in places]
