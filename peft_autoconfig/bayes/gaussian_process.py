"""A Gaussian process with an RBF kernel, fitted by maximum a posteriori with exact gradients.

The model is BoTorch's `SingleTaskGP` with its defaults: one length scale per input under a prior
that widens with the number of inputs (Hvarfner et al. 2024, arXiv 2402.02229), noise under a prior
that expects little, a constant mean and, unless one is given, a prior deviation of 1. Written out
here, because a search fits it anew for every proposal: gradients by hand cost a fraction of those
through a graph.

Plain torch and SciPy; imported by `surrogate`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["Deviation", "GaussianProcess", "cholesky", "constant_deviation", "fit", "matern", "rbf"]

logger = logging.getLogger(__name__)

Deviation = Callable[[Tensor], Tensor]  # from points ``n x d`` to prior standard deviations ``n``

JITTER = 1e-6  # added to variances of 1
LENGTH_SCALE_DEVIATION = math.sqrt(3)  # of the prior of its logarithm
NOISE_PRIOR = (-4.0, 1.0)  # mean and deviation of the logarithm of the noise's variance
SMALLEST = (2.5e-2, 1e-4)  # length scale and noise variance
LARGEST_LOG = 700.0  # a line search may step far beyond; e to the power of 710 is no float


@dataclass(frozen=True)
class GaussianProcess:
    """A process that has seen ``n`` points.

    Attributes:
        X: ``n x d``.
        length_scales: ``d``.
        noise: Variance of the noise.
        constant: The prior mean.
        factor: Lower Cholesky factor ``n x n`` of the noisy covariance of X.
        weights: ``n``, the solution of that covariance for the centred scores.
        kernel: Correlations ``n x m`` of points that were divided by the length scales.
        deviation: Prior standard deviation of noise-free scores.
    """

    X: Tensor
    length_scales: Tensor
    noise: float
    constant: float
    factor: Tensor
    weights: Tensor
    kernel: Callable[[Tensor, Tensor], Tensor]
    deviation: Deviation

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
        deviation: Deviation | None = None,
    ) -> "GaussianProcess":
        """Returns the process given noisy scores.

        Args:
            X: ``n x d``.
            Y: ``n``.
            length_scales: ``d``.
            noise: Variance of the noise.
            constant: The prior mean; None takes the most likely one.
            kernel: `rbf`, which None stands for, or `matern`.
            deviation: Prior standard deviation of noise-free scores; None stands for 1.
        """
        kernel, deviation = kernel or rbf, deviation or constant_deviation(1.0)
        covariance = _outer(deviation, X, X) * kernel(X / length_scales, X / length_scales)
        factor = cholesky(covariance + noise * torch.eye(len(X), dtype=X.dtype))
        if constant is None:
            constant, weights = _solve(factor, Y)
        else:
            weights = torch.cholesky_solve((Y - constant)[:, None], factor)[:, 0]
        return cls(X, length_scales, noise, constant, factor, weights, kernel, deviation)

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Returns prior covariances ``n x m`` of noise-free scores."""
        correlations = self.kernel(X / self.length_scales, Z / self.length_scales)
        return _outer(self.deviation, X, Z) * correlations

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and variances ``n`` of noise-free scores."""
        mean, explained = self._explain(X)
        return mean, self.deviation(X).square() - explained.square().sum(dim=0)

    def joint_posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and covariances ``n x n`` of noise-free scores."""
        mean, explained = self._explain(X)
        return mean, self.covariance(X, X) - explained.T @ explained

    def _explain(self, X: Tensor) -> tuple[Tensor, Tensor]:
        cross = self.covariance(self.X, X)
        mean = self.constant + cross.T @ self.weights
        return mean, torch.linalg.solve_triangular(self.factor, cross, upper=False)


def fit(
    X: Tensor, Y: Tensor, *, maxiter: int, deviation: Deviation | None = None
) -> GaussianProcess:
    """Returns the process whose length scales and noise are the most probable.

    Args:
        X: ``n x d`` inputs, each about in [0, 1].
        Y: ``n`` scores, standardised. Where they are all alike, the priors' modes are taken.
        maxiter: Iterations of L-BFGS-B.
        deviation: Prior standard deviation of noise-free scores; None stands for 1.
    """
    deviation = deviation or constant_deviation(1.0)

    def process(logs: NDArray[np.float64]) -> GaussianProcess:
        scales = torch.from_numpy(logs[:-1]).exp()
        return GaussianProcess.condition(X, Y, scales, _noise(logs), deviation=deviation)

    modes = _prior_modes(X.shape[1])
    if len(Y) < 2 or float(Y.std()) == 0:
        return process(modes)
    prior = _outer(deviation, X, X)
    bounds = [(math.log(SMALLEST[0]), None)] * X.shape[1] + [(math.log(SMALLEST[1]), None)]
    found = minimize(
        lambda logs: _objective(logs, X, Y, prior),
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


def constant_deviation(value: float) -> Deviation:
    """Returns the prior deviation that is the same everywhere."""
    return lambda X: X.new_full((len(X),), value)


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


@torch.no_grad()
def _objective(
    logs: NDArray[np.float64], X: Tensor, Y: Tensor, prior: Tensor
) -> tuple[float, NDArray[np.float64]]:
    """Returns the negative log posterior per point, and its gradient.

    `prior` holds the products ``n x n`` of the points' prior deviations. With A the noisy
    covariance and M = A^-1 - a a^T for a = A^-1 (Y - c), the likelihood's gradient is tr(M dA) / 2.
    For the log of a length scale dA is K times squared scaled distances, whose sum against W = M K
    needs no ``n x n x d`` array. At the best c its own gradient is 0.
    """
    n = len(X)
    scaled, noise = X / torch.from_numpy(logs[:-1]).exp(), _noise(logs)
    kernel = prior * rbf(scaled, scaled)
    factor = cholesky(kernel + noise * torch.eye(n, dtype=X.dtype))
    constant, weights = _solve(factor, Y)
    misfit = 0.5 * float((Y - constant) @ weights)
    value = misfit + float(factor.diagonal().log().sum())
    difference = torch.cholesky_inverse(factor) - weights[:, None] * weights
    shared = difference * kernel
    lengths = shared.sum(dim=1) @ scaled.square() - (scaled * (shared @ scaled)).sum(dim=0)
    gradient = np.append(lengths.numpy(), 0.5 * noise * float(difference.trace()))
    means, deviations = _log_priors(X.shape[1])
    distance = (logs - means) / deviations
    value += float((logs + 0.5 * distance**2).sum())
    gradient += 1 + distance / deviations
    return value / n, gradient / n


def _noise(logs: NDArray[np.float64]) -> float:
    return math.exp(min(logs[-1], LARGEST_LOG))


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


def _outer(deviation: Deviation, X: Tensor, Z: Tensor) -> Tensor:
    return deviation(X)[:, None] * deviation(Z)


def _squared_distances(X: Tensor, Z: Tensor) -> Tensor:
    squares = X.square().sum(dim=1)[:, None] + Z.square().sum(dim=1) - 2 * X @ Z.T
    return squares.clamp_min_(0)


def _log_priors(num_inputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns means and deviations of the logarithms of the length scales and of the noise."""
    mean = math.sqrt(2) + 0.5 * math.log(num_inputs)
    means = np.array([mean] * num_inputs + [NOISE_PRIOR[0]])
    return means, np.array([LENGTH_SCALE_DEVIATION] * num_inputs + [NOISE_PRIOR[1]])


def _prior_modes(num_inputs: int) -> NDArray[np.float64]:
    """Returns the logarithms of the priors' modes."""
    means, deviations = _log_priors(num_inputs)
    modes: NDArray[np.float64] = means - deviations**2
    return modes
