"""Bayesian optimisation that starts from what searches of other tasks found on the same base model.

Imports `bayes`, `space`, `design`, `earlier`, `history`, `lattice` and `unrepeated`; imported by
`search`.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ..bayes.pareto import is_non_dominated
from ..bayes.proposal import choose, propose
from ..bayes.transfer import EarlierTask, fit_with_earlier
from ..space import SearchSpace
from .design import NUM_STARTUP, startup_design
from .earlier import EarlierRun
from .history import History, Vector
from .lattice import knowledge_of, tensor_of
from .unrepeated import UnrepeatedSampler

__all__ = ["TransferSampler"]

MAX_POINTS = 128  # of one earlier run; more would make each fit slow


class TransferSampler(UnrepeatedSampler):
    """Proposes as `BayesianSampler` does, with what earlier searches of other tasks found.

    Half of the design makes way for members of their fronts. Then by turns one Gaussian process
    models this task beside the earlier ones, how much they have in common being fitted, and the
    model of `BayesianSampler` this task alone. On synthetic tasks a related run saves evaluations
    and an unrelated one costs none (benchmarks/optimiser). For studies and errors see
    `UnrepeatedSampler`.

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

    def _choose(
        self, history: History, candidates: Vector, generator: np.random.Generator
    ) -> Vector:
        known = knowledge_of(history, self._space)
        draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
        starts = tensor_of([*candidates], self._space)
        is_turn = (len(history.evaluated) + len(history.pending)) % 2 == 0
        if not (is_turn and self._tasks):
            return np.asarray(propose(self._lattice, known, starts, draws).numpy())
        surrogate, lattice = fit_with_earlier(self._lattice, known, self._tasks)
        return np.asarray(choose(lattice, known, surrogate, starts, draws).numpy())

    @cached_property
    def _tasks(self) -> list[EarlierTask]:
        """The earlier runs, of long ones a sample."""
        generator = np.random.default_rng((self._seed, len(self._earlier)))
        tasks = []
        for run in self._earlier:
            kept = np.sort(generator.permutation(len(run.scores))[:MAX_POINTS])
            X = tensor_of([*run.points[kept]], self._space)
            tasks.append(EarlierTask.of(self._lattice, X, torch.from_numpy(run.scores[kept])))
        return tasks

    @cached_property
    def _design(self) -> list[Vector]:
        """The usual design, in which members of earlier fronts stand for the nearest in cost."""
        design = startup_design(self._space, self._n_startup, self._seed)
        share = self._n_startup // 2 // max(len(self._tasks), 1)
        members = [x for task in self._tasks for x in self._front_of(task, max(share, 1))]
        costs = self._lattice.cost(tensor_of(design, self._space))
        left = [*range(len(design))]
        for x in members[: self._n_startup // 2]:
            cost = self._lattice.cost(tensor_of([x], self._space))
            nearest = min(left, key=lambda i: float((costs[i] - cost).abs()))
            left.remove(nearest)
            design[nearest] = x
        return design

    def _front_of(self, task: EarlierTask, limit: int) -> list[Vector]:
        """Returns at most so many members of a task's front, spread evenly, cheapest first."""
        mean, _ = task.surrogate.posterior(self._lattice.inputs(task.X))
        costs = self._lattice.cost(task.X)
        members = is_non_dominated(mean, costs).nonzero().flatten()
        members = members[costs[members].argsort(stable=True)]
        places = np.unique(np.linspace(0, len(members) - 1, min(limit, len(members))).round())
        return [task.X[members[int(place)]].numpy() for place in places]
