"""AutoPEFT's published search, without the defects of its release, as an Optuna sampler.

Here to compare with, and for whoever wants the paper's method. It needs the extra `saas` and half a
minute of computing for each proposal. Imports `bayes`, `history`, `lattice` and `unrepeated`.
"""

import numpy as np
import torch

from ..bayes.proposal import Knowledge
from ..bayes.published import fit_published, propose_published
from ..bayes.saas import Inference
from ..bayes.surrogate import Surrogate
from ..space import SearchSpace
from .design import NUM_STARTUP
from .history import History, Vector
from .lattice import knowledge_of
from .unrepeated import UnrepeatedSampler

__all__ = ["PublishedSampler"]


class PublishedSampler(UnrepeatedSampler):
    """Proposes by a SAAS Gaussian process, sampled by NUTS, and the noisy EHVI, as AutoPEFT does.

    Zhou et al. (2024, arXiv 2301.12132) model the score by a Gaussian process that expects few
    dimensions to matter and average over its hyperparameters. Taken from their release are that
    model, its sampling, the acquisition function and how it is searched. Unlike there, the
    configuration tried is the one chosen, none is tried twice, parameters are counted rather than
    modelled, the reference point follows the data, and the startup is the design of all our
    samplers. Points that are pending are drawn from the model as those seen are. For studies and
    errors see `UnrepeatedSampler`; without NumPyro and JAX `ConfigError` is raised.

    Args:
        space: The space that the objective suggests from.
        seed: Seed of all draws, at least 0; None draws one.
        n_startup: Trials of the design, at least 1.
        inference: How long NUTS samples; the default is that of the release.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int | None = None,
        *,
        n_startup: int = NUM_STARTUP,
        inference: Inference | None = None,
    ) -> None:
        super().__init__(space, seed, n_startup=n_startup)
        self._inference = inference or Inference()
        self._fitted: tuple[Knowledge, list[Surrogate]] | None = None

    def _choose(
        self, history: History, candidates: Vector, generator: np.random.Generator
    ) -> Vector:
        known = knowledge_of(history, self._space)
        draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
        found = propose_published(self._lattice, known, self._surrogates(known), draws)
        if found is None:  # all neighbours of the front were seen
            return np.asarray(generator.permutation(self._unseen(candidates, history))[0])
        return np.asarray(found.numpy())

    def _surrogates(self, known: Knowledge) -> list[Surrogate]:
        """Returns models given what is known, the last ones if nothing was evaluated since.

        Their seed depends on the number of scores alone, so all processes get the same ones.
        """
        if self._fitted is not None:
            before, surrogates = self._fitted
            if torch.equal(before.train_X, known.train_X):
                if torch.equal(before.train_Y, known.train_Y):
                    return surrogates
        seed = np.random.default_rng((self._seed, len(known.train_Y))).integers(2**31)
        surrogates = fit_published(
            known.train_X, known.train_Y, inference=self._inference, seed=int(seed)
        )
        self._fitted = known, surrogates
        return surrogates
