"""The model of the score: a Gaussian process on few, noisy evaluations.

Only the score is modelled; the cost is known. `fit_surrogate` maps (train_X, train_Y) to a
`Surrogate`; `Surrogate.fantasize` draws what the noise-free scores of the points seen and pending
may be, and predicts other points given each of these draws. Double precision on the CPU throughout.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .gaussian_process import JITTER, GaussianProcess, Prior, cholesky, fit
from .trend import Layout, fit_trend

__all__ = ["FIRST_SCORES", "Fantasies", "Surrogate", "fit_surrogate"]

FIRST_SCORES = 12  # from all over the space; the others follow what was learned


@dataclass(frozen=True)
class Fantasies:
    """Possible truths at some baseline points, and what each says about any other point.

    Attributes:
        values: ``s x b`` draws of the noise-free scores of ``b`` baseline points.
    """

    values: Tensor
    _model: GaussianProcess
    _baseline: Prior
    _factor: Tensor
    _weights: Tensor

    @torch.no_grad()
    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n x s`` and standard deviations ``n x 1`` of the noise-free scores.

        Args:
            X: ``n x d``.
        """
        prior = self._model.prior(X)
        cross = self._model.covariance(self._baseline, prior)
        mean = prior.mean[:, None] + cross.T @ self._weights
        explained = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        variance = prior.variance - explained.square().sum(dim=0)
        return mean, variance.clamp_min(JITTER).sqrt()[:, None]


@dataclass(frozen=True)
class Surrogate:
    """A fitted Gaussian process; made by `fit_surrogate`.

    Works on standardised scores; `standardize` says how they come from the real ones.
    """

    model: GaussianProcess
    location: float
    scale: float

    def standardize(self, Y: float) -> float:
        """Returns a score on the model's scale."""
        return (Y - self.location) / self.scale

    @torch.no_grad()
    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and standard deviations ``n`` of the noise-free real scores."""
        mean, variance = self.model.posterior(X)
        return mean * self.scale + self.location, variance.clamp_min(JITTER).sqrt() * self.scale

    @torch.no_grad()
    def joint_posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and covariances ``n x n`` of the noise-free real scores."""
        mean, covariance = self.model.joint_posterior(X)
        return mean * self.scale + self.location, covariance * self.scale**2

    @torch.no_grad()
    def fantasize(self, X: Tensor, num_samples: int, generator: torch.Generator) -> Fantasies:
        """Returns joint draws, on the model's scale, of the noise-free scores of ``b x d`` points.

        Points that were observed are drawn within what their noise leaves open; points that are
        still pending, within what the model knows of them.
        """
        mean, covariance = self.model.joint_posterior(X)
        nugget = JITTER * torch.eye(len(X), dtype=X.dtype)
        noise = torch.randn(num_samples, len(X), dtype=X.dtype, generator=generator)
        values = mean + noise @ cholesky(covariance + nugget).T
        prior = self.model.prior(X)
        factor = cholesky(self.model.covariance(prior, prior) + nugget)
        weights = torch.cholesky_solve((values - prior.mean).T, factor)
        return Fantasies(values, self.model, prior, factor, weights)


def fit_surrogate(
    train_X: Tensor,
    train_Y: Tensor,
    *,
    maxiter: int = 50,
    layout: Layout | None = None,
) -> Surrogate:
    """Returns a Gaussian process of the score, fitted by maximum a posteriori.

    Where the scores are constant, or so large that they overflow, it has learned nothing.

    Args:
        train_X: ``n x d`` inputs, each about in [0, 1].
        train_Y: ``n`` finite scores, in the order of their trials.
        maxiter: Iterations of the fit. 50 costs a tenth of a fit to the end at the same accuracy.
        layout: Which inputs are what, so that the process may complete a trend; None for none.
    """
    train_Y = train_Y.clamp_min(_lowest_credible(train_Y))
    spread = float(train_Y.std()) if len(train_Y) > 1 else 0.0
    location, scale = float(train_Y.mean()), spread
    standardized = (train_Y - location) / scale
    if not 1e-12 < spread < math.inf:
        scale, standardized = 1.0, torch.zeros_like(train_Y)
    trend = None if layout is None else fit_trend(layout, train_X, standardized)
    model = fit(train_X, standardized, maxiter=maxiter, trend=trend)
    return Surrogate(model, location, scale)


def _lowest_credible(Y: Tensor) -> float:
    """Returns the score below which one is taken for a training that diverged, and is cut.

    Three times as far below the median of the first scores as the best is above it: real searches
    have many scores at chance and few above, so nothing that was merely bad is touched. Later
    scores are mostly near the front, and chance is as far below their median.
    """
    median, best = float(Y[:FIRST_SCORES].median()), float(Y.max())
    return median - 3 * (best - median) if best > median else float(Y.min())
