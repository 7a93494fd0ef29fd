"""The search that the AutoPEFT release ran in effect: mutations of the current front.

The released code optimises an acquisition function and then evaluates its starting points, which
are random mutations of members of the front. So this is what a model of the score is up against.

Imports `bayes`, `history`, `lattice` and `unrepeated`; imported by benchmarks.
"""

import numpy as np
import torch

from ..bayes.pareto import is_non_dominated
from .history import History, Vector
from .lattice import tensor_of
from .unrepeated import UnrepeatedSampler

__all__ = ["ParetoMutationSampler"]


class ParetoMutationSampler(UnrepeatedSampler):
    """Proposes random changes of one dimension of a random member of the observed front.

    A dimension is drawn evenly, then another of its values. A member all of whose changes were
    evaluated makes way for another one, and when all have, a random point is drawn. For studies,
    arguments and errors see `UnrepeatedSampler`.
    """

    def _choose(
        self, history: History, candidates: Vector, generator: np.random.Generator
    ) -> Vector:
        scores = torch.tensor(history.scores, dtype=torch.float64)
        costs = self._lattice.cost(tensor_of(history.evaluated, self._space))
        front = np.array(history.evaluated)[is_non_dominated(scores, costs).numpy()]
        for member in generator.permutation(front):
            unseen = self._unseen(self._mutations(member, generator), history)
            if len(unseen):
                return np.asarray(unseen[0])
        return np.asarray(generator.permutation(self._unseen(candidates, history))[0])

    def _mutations(self, member: Vector, generator: np.random.Generator) -> Vector:
        """Returns all valid changes of one dimension, dimension by dimension in random order."""
        mutants = []
        for dimension in generator.permutation(len(self._lattice.num_levels)):
            count = self._lattice.num_levels[dimension]
            for level in generator.permutation(count) / max(count - 1, 1):
                mutant = member.copy()
                mutant[dimension] = level
                mutants.append(mutant)
        allowed = self._lattice.cost(tensor_of(mutants, self._space)).isfinite()
        return np.asarray(np.array(mutants)[allowed.numpy()])
