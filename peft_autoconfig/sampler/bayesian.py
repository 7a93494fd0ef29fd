"""Multi-objective Bayesian optimisation as an Optuna sampler.

Imports `bayes`, `history`, `lattice` and `unrepeated`; imported by `search`.
"""

import numpy as np
import torch

from ..bayes.proposal import propose
from .history import History, Vector
from .lattice import knowledge_of, tensor_of
from .unrepeated import UnrepeatedSampler

__all__ = ["BayesianSampler"]


class BayesianSampler(UnrepeatedSampler):
    """Proposes configurations by multi-objective Bayesian optimisation over a `SearchSpace`.

    After the design a model of the score and the expected gain of hypervolume choose: a formula of
    what layers, sizes and the learning rate do, completed by a Gaussian process, and every fourth
    time a Gaussian process alone. No point is proposed twice, whatever became of it. A pruned trial
    counts as one with the score in its user attribute ``forecast``, or else the worst so far; a
    failed one as none. For studies, arguments and errors see `UnrepeatedSampler`.
    """

    def _choose(
        self, history: History, candidates: Vector, generator: np.random.Generator
    ) -> Vector:
        known = knowledge_of(history, self._space)
        draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
        starts = tensor_of([*candidates], self._space)
        return np.asarray(propose(self._lattice, known, starts, draws).numpy())
