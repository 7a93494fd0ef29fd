"""A Gaussian process with an RBF kernel, fitted by maximum a posteriori with exact gradients.

The model is BoTorch's `SingleTaskGP` with its defaults: one length scale per input under a prior
that widens with the number of inputs (Hvarfner et al. 2024, arXiv 2402.02229), noise under a prior
that expects little, a constant mean and, unless one is given, a prior deviation of 1. With a
`Trend` that takes the place of the constant, the process models what the trend leaves unsaid, by
all inputs but the layers, and its deviation is fitted too. Written out here, because a search fits
it anew for every proposal: gradients by hand cost a fraction of those through a graph.

Imports `trend`, torch and SciPy; imported by `surrogate`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from .trend import Trend

__all__ = [
    "GaussianProcess",
    "Prior",
    "cholesky",
    "fit",
    "matern",
    "rbf",
]

logger = logging.getLogger(__name__)

JITTER = 1e-6  # added to variances of 1
LENGTH_SCALE_DEVIATION = math.sqrt(3)  # of the prior of its logarithm
NOISE_PRIOR = (-4.0, 1.0)  # mean and deviation of the logarithm of the noise's variance
AMPLITUDE_PRIOR = (-1.5, 1.0)  # of the logarithm of the deviation from a trend
SMALLEST = (2.5e-2, 1e-4)  # length scale and noise variance
AMPLITUDES = (1e-3, 3.0)
LARGEST_LOG = 700.0  # a line search may step far beyond; e to the power of 710 is no float


@dataclass(frozen=True)
class Prior:
    """What a process says of ``n`` points before it sees a score.

    Attributes:
        X: ``n x d``.
        mean: ``n``.
        variance: ``n``.
        features: ``n x q``; their products are the trend's share of the covariances.
    """

    X: Tensor
    mean: Tensor
    variance: Tensor
    features: Tensor


@dataclass(frozen=True)
class GaussianProcess:
    """A process that has seen ``n`` points.

    Attributes:
        X: ``n x d``.
        length_scales: ``d``; infinite for an input that the kernel does not see.
        noise: Variance of the noise.
        constant: The prior mean, or what is added to the trend's.
        factor: Lower Cholesky factor ``n x n`` of the noisy covariance of X.
        weights: ``n``, the solution of that covariance for the centred scores.
        kernel: Correlations ``n x m`` of points that were divided by the length scales.
        deviation: Prior standard deviation of noise-free scores, from the trend if there is one.
        trend: The trend.
    """

    X: Tensor
    length_scales: Tensor
    noise: float
    constant: float
    factor: Tensor
    weights: Tensor
    kernel: Callable[[Tensor, Tensor], Tensor]
    deviation: float
    trend: Trend | None = None

    @classmethod
    def condition(
        cls,
        X: Tensor,
        Y: Tensor,
        length_scales: Tensor,
        noise: float,
        *,
        constant: float | None = None,
        kernel: Callable[[Tensor, Tensor], Tensor] | None = None,
        deviation: float = 1.0,
        trend: Trend | None = None,
    ) -> "GaussianProcess":
        """Returns the process given noisy scores.

        Args:
            X: ``n x d``.
            Y: ``n``.
            length_scales: ``d``.
            noise: Variance of the noise.
            constant: The prior mean; None takes the most likely one, or 0 beside a trend.
            kernel: `rbf`, which None stands for, or `matern`.
            deviation: Prior standard deviation of noise-free scores, from the trend if any.
            trend: The trend; None for none.
        """
        empty = Y.new_empty(0)
        process = cls(X, length_scales, noise, 0.0, empty, empty, kernel or rbf, deviation, trend)
        prior = process.prior(X)
        covariance = process.covariance(prior, prior)
        factor = cholesky(covariance + noise * torch.eye(len(X), dtype=X.dtype))
        if constant is None and trend is None:
            constant, weights = _solve(factor, Y)
        else:
            constant = constant or 0.0
            weights = torch.cholesky_solve((Y - prior.mean - constant)[:, None], factor)[:, 0]
        return replace(process, constant=constant, factor=factor, weights=weights)

    def prior(self, X: Tensor) -> Prior:
        """Returns what the process says of points ``n x d`` before it sees a score."""
        mean, features = X.new_zeros(len(X)), X.new_zeros(len(X), 0)
        if self.trend is not None:
            mean, features = self.trend.linear(X)
        variance = self.deviation**2 + features.square().sum(dim=1)
        return Prior(X, mean + self.constant, variance, features)

    def covariance(self, at: Prior, other: Prior) -> Tensor:
        """Returns prior covariances ``n x m`` of noise-free scores."""
        correlations = self.kernel(at.X / self.length_scales, other.X / self.length_scales)
        return self.deviation**2 * correlations + at.features @ other.features.T

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and variances ``n`` of noise-free scores."""
        prior = self.prior(X)
        mean, explained = self._explain(prior)
        return mean, prior.variance - explained.square().sum(dim=0)

    def joint_posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and covariances ``n x n`` of noise-free scores."""
        prior = self.prior(X)
        mean, explained = self._explain(prior)
        return mean, self.covariance(prior, prior) - explained.T @ explained

    def _explain(self, at: Prior) -> tuple[Tensor, Tensor]:
        cross = self.covariance(self._seen, at)
        mean = at.mean + cross.T @ self.weights
        return mean, torch.linalg.solve_triangular(self.factor, cross, upper=False)

    @cached_property
    def _seen(self) -> Prior:
        return self.prior(self.X)


def fit(X: Tensor, Y: Tensor, *, maxiter: int, trend: Trend | None = None) -> GaussianProcess:
    """Returns the process whose length scales and noise are the most probable.

    Args:
        X: ``n x d`` inputs, each about in [0, 1].
        Y: ``n`` scores, standardised. Where they are all alike, the priors' modes are taken.
        maxiter: Iterations of L-BFGS-B.
        trend: What the process is to complete, within a deviation that is fitted as well; it is 1
            without a trend.
    """
    used = [*range(X.shape[1])] if trend is None else trend.layout.other_inputs(X.shape[1])
    evidence = _Evidence.of(X, Y, used, trend)

    def process(logs: NDArray[np.float64]) -> GaussianProcess:
        scales = X.new_full((X.shape[1],), math.inf)
        scales[used] = torch.from_numpy(logs[: len(used)]).exp()
        noise, deviation = _exp(logs[len(used)]), 1.0 if trend is None else _exp(logs[-1])
        return GaussianProcess.condition(X, Y, scales, noise, deviation=deviation, trend=trend)

    modes, bounds = evidence.modes, evidence.bounds
    if len(Y) < 2 or float(Y.std()) == 0:
        return process(modes)
    found = minimize(
        evidence,
        np.maximum(modes, [low for low, _ in bounds]),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": maxiter},
    )
    if not np.isfinite(found.x).all():
        logger.warning("the surrogate's fit failed (%s); its prior is used instead", found.message)
        return process(modes)
    return process(found.x)


def cholesky(covariance: Tensor) -> Tensor:
    """Returns the lower factor, with as little on the diagonal as makes it possible.

    Raises:
        ValueError: The matrix is not a covariance.
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    for jitter in (0.0, *(JITTER * 10**power for power in range(4))):
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * identity)
        if not failed:
            return factor
    raise ValueError("expected a positive definite covariance, got one that is not")


@dataclass(frozen=True)
class _Evidence:
    """The negative log posterior per point of the logarithms of what is fitted, and its gradient.

    These are the length scales, the noise's variance and, with a trend, the deviation from it.

    Attributes:
        X: ``n x d``, the inputs that the kernel sees.
        Y: ``n``, less the trend's mean.
        linear: ``n x n``, the trend's share of the covariances; None if there is no trend.
    """

    X: Tensor
    Y: Tensor
    linear: Tensor | None = None

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, used: list[int], trend: Trend | None) -> "_Evidence":
        if trend is None:
            return cls(X, Y)
        mean, features = trend.linear(X)
        return cls(X[:, used], Y - mean, features @ features.T)

    @torch.no_grad()
    def __call__(self, logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Returns value and gradient.

        With A the noisy covariance and M = A^-1 - a a^T for a = A^-1 (Y - c), the likelihood's
        gradient is tr(M dA) / 2. For the log of a length scale dA is K times squared scaled
        distances, whose sum against W = M K needs no ``n x n x d`` array. At the best c its own
        gradient is 0.
        """
        n, d = self.X.shape
        scaled, noise = self.X / torch.from_numpy(logs[:d]).exp(), _exp(logs[d])
        kernel = rbf(scaled, scaled)
        covariance = kernel
        if self.linear is not None:
            kernel = kernel * _exp(2 * logs[-1])
            covariance = kernel + self.linear
        factor = cholesky(covariance + noise * torch.eye(n, dtype=self.X.dtype))
        if self.linear is None:
            constant, weights = _solve(factor, self.Y)
        else:
            constant, weights = 0.0, torch.cholesky_solve(self.Y[:, None], factor)[:, 0]
        misfit = 0.5 * float((self.Y - constant) @ weights)
        value = misfit + float(factor.diagonal().log().sum())
        difference = torch.cholesky_inverse(factor) - weights[:, None] * weights
        shared = difference * kernel
        lengths = shared.sum(dim=1) @ scaled.square() - (scaled * (shared @ scaled)).sum(dim=0)
        gradient = np.append(lengths.numpy(), 0.5 * noise * float(difference.trace()))
        if self.linear is not None:
            gradient = np.append(gradient, float(shared.sum()))
        means, deviations = self._priors
        distance = (logs - means) / deviations
        value += float((self._is_log_normal * logs + 0.5 * distance**2).sum())
        gradient += self._is_log_normal + distance / deviations
        return value / n, gradient / n

    @property
    def modes(self) -> NDArray[np.float64]:
        """The logarithms of the priors' modes."""
        means, deviations = self._priors
        modes: NDArray[np.float64] = means - self._is_log_normal * deviations**2
        return modes

    @property
    def bounds(self) -> list[tuple[float, float | None]]:
        """Lowest and highest logarithms."""
        length, noise = (math.log(value) for value in SMALLEST)
        bounds: list[tuple[float, float | None]] = [(length, None)] * self.X.shape[1]
        bounds.append((noise, None))
        if self.linear is not None:
            bounds.append((math.log(AMPLITUDES[0]), math.log(AMPLITUDES[1])))
        return bounds

    @cached_property
    def _priors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means and deviations of the logarithms."""
        d = self.X.shape[1]
        mean = math.sqrt(2) + 0.5 * math.log(d)
        rest = [NOISE_PRIOR] if self.linear is None else [NOISE_PRIOR, AMPLITUDE_PRIOR]
        pairs = np.array([(mean, LENGTH_SCALE_DEVIATION)] * d + rest)
        return pairs[:, 0], pairs[:, 1]

    @cached_property
    def _is_log_normal(self) -> NDArray[np.float64]:
        """1 where the prior is one of the value, 0 where it is one of the logarithm."""
        ones = np.ones(self.X.shape[1] + 1)
        return ones if self.linear is None else np.append(ones, 0.0)


def _exp(log: float) -> float:
    return math.exp(min(log, LARGEST_LOG))


def _solve(factor: Tensor, Y: Tensor) -> tuple[float, Tensor]:
    """Returns the most likely constant, and the solution for the scores less it."""
    both = torch.cholesky_solve(torch.stack([Y, torch.ones_like(Y)], dim=1), factor)
    constant = float(both[:, 0].sum() / both[:, 1].sum())
    return constant, both[:, 0] - constant * both[:, 1]


def rbf(X: Tensor, Z: Tensor) -> Tensor:
    """Returns ``exp(-|x - z|^2 / 2)``, ``n x m``, of inputs scaled already."""
    return torch.exp(-0.5 * _squared_distances(X, Z))


def matern(X: Tensor, Z: Tensor) -> Tensor:
    """Returns Matérn correlations of smoothness 5/2, ``n x m``, of inputs scaled already."""
    distances = (5 * _squared_distances(X, Z)).sqrt()
    return (1 + distances + distances.square() / 3) * torch.exp(-distances)


def _squared_distances(X: Tensor, Z: Tensor) -> Tensor:
    squares = X.square().sum(dim=1)[:, None] + Z.square().sum(dim=1) - 2 * X @ Z.T
    return squares.clamp_min_(0)
