"""The model of the score: a Gaussian process on few, noisy evaluations.

Only the score is modelled; the cost is known. `fit_surrogate` maps (train_X, train_Y) to a
`Surrogate`; `Surrogate.fantasize` draws what the noise-free scores of the points seen and pending
may be, and predicts other points given each of these draws. Double precision on the CPU throughout.
"""

import logging
import warnings
from copy import deepcopy
from dataclasses import dataclass

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.exceptions.warnings import BotorchWarning, OptimizationWarning
from botorch.models import SingleTaskGP
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.distributions import MultivariateNormal
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.utils.warnings import GPInputWarning
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor

__all__ = ["Fantasies", "Surrogate", "fit_surrogate"]

logger = logging.getLogger(__name__)

JITTER = 1e-6  # added to variances of 1


@dataclass(frozen=True)
class Fantasies:
    """Possible truths at some baseline points, and what each says about any other point.

    Attributes:
        values: ``s x b`` draws of the noise-free scores of ``b`` baseline points.
    """

    values: Tensor
    _surrogate: "Surrogate"
    _baseline: Tensor
    _factor: Tensor
    _weights: Tensor

    @torch.no_grad()
    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n x s`` and standard deviations ``n x 1`` of the noise-free scores.

        Args:
            X: ``n x d``.
        """
        prior_mean, prior_variance, cross = self._surrogate.prior(X, self._baseline)
        mean = prior_mean[:, None] + cross @ self._weights
        explained = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        variance = prior_variance - explained.square().sum(dim=0)
        return mean, variance.clamp_min(JITTER).sqrt()[:, None]


@dataclass(frozen=True)
class Surrogate:
    """A fitted Gaussian process; made by `fit_surrogate`.

    Works on standardised scores; `standardize` says how they come from the real ones.
    """

    model: SingleTaskGP
    location: float
    scale: float

    def standardize(self, Y: float) -> float:
        """Returns a score on the model's scale."""
        return (Y - self.location) / self.scale

    @torch.no_grad()
    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and standard deviations ``n`` of the noise-free real scores."""
        posterior = self._joint(X)
        deviation = posterior.variance.clamp_min(0).sqrt()
        return posterior.mean * self.scale + self.location, deviation * self.scale

    @torch.no_grad()
    def joint_posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means ``n`` and covariances ``n x n`` of the noise-free real scores."""
        posterior = self._joint(X)
        covariance: Tensor = posterior.covariance_matrix
        return posterior.mean * self.scale + self.location, covariance * self.scale**2

    @torch.no_grad()
    def fantasize(self, X: Tensor, num_samples: int, generator: torch.Generator) -> Fantasies:
        """Returns joint draws, on the model's scale, of the noise-free scores of ``b x d`` points.

        Points that were observed are drawn within what their noise leaves open; points that are
        still pending, within what the model knows of them.
        """
        posterior = self._joint(X)
        spread = _cholesky(posterior.covariance_matrix)
        noise = torch.randn(num_samples, len(X), dtype=X.dtype, generator=generator)
        values = posterior.mean + noise @ spread.T
        mean, _, covariance = self.prior(X, X)
        factor = _cholesky(covariance)
        weights = torch.cholesky_solve((values - mean).T, factor)
        return Fantasies(values, self, X, factor, weights)

    def _joint(self, X: Tensor) -> MultivariateNormal:
        """Returns the joint posterior of ``n`` noise-free scores on the model's scale."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GPInputWarning)  # asking for seen points is meant
            joint: MultivariateNormal = self.model(X)
        return joint

    @torch.no_grad()
    def prior(self, X: Tensor, Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns prior means ``n`` and variances ``n`` of X, and covariances ``n x m`` with Z."""
        kernel = self.model.covar_module
        return self.model.mean_module(X), kernel(X, diag=True), kernel(X, Z).to_dense()


def fit_surrogate(train_X: Tensor, train_Y: Tensor, *, maxiter: int = 50) -> Surrogate:
    """Returns a Gaussian process of the score, fitted by maximum a posteriori.

    BoTorch's `SingleTaskGP` with its defaults: an RBF kernel with one length scale per input under
    a prior that widens with the number of inputs (Hvarfner et al. 2024), and inferred noise. When
    the scores are constant, or the fit fails, the hyperparameters stay where their priors put them.

    Args:
        train_X: ``n x d`` inputs, each about in [0, 1].
        train_Y: ``n`` finite scores.
        maxiter: Iterations of L-BFGS-B. 50 costs a tenth of the default at the same accuracy.
    """
    train_Y = train_Y.clamp_min(_lowest_credible(train_Y))
    spread = float(train_Y.std()) if len(train_Y) > 1 else 0.0
    location, scale = float(train_Y.mean()), spread if spread > 1e-12 else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        standardized = ((train_Y - location) / scale)[:, None]
        model = SingleTaskGP(train_X, standardized, outcome_transform=None)
    if spread > 1e-12:
        _fit(model, maxiter)
    model.eval()
    return Surrogate(model, location, scale)


def _lowest_credible(Y: Tensor) -> float:
    """Returns the score below which one is taken for a training that diverged, and is cut.

    Three times as far below the median as the best is above it: real searches have many scores at
    chance and few above, so nothing that was merely bad is touched.
    """
    median, best = float(Y.median()), float(Y.max())
    return median - 3 * (best - median) if best > median else float(Y.min())


def _fit(model: SingleTaskGP, maxiter: int) -> None:
    """Fits hyperparameters in place; one attempt, which draws no random numbers."""
    before = deepcopy(model.state_dict())
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizationWarning)  # maxiter is meant to be reached
            warnings.simplefilter("ignore", NumericalWarning)
            fit_gpytorch_mll_scipy(mll, options={"maxiter": maxiter})
        if all(value.isfinite().all() for value in model.parameters()):
            return
        reason = "parameters are not finite"
    except (ModelFittingError, NanError, NotPSDError, RuntimeError, ValueError) as error:
        reason = str(error)
    logger.warning("the surrogate's fit failed (%s); its prior is used instead", reason)
    model.load_state_dict(before)


def _cholesky(covariance: Tensor) -> Tensor:
    """Returns the lower factor, with as little on the diagonal as makes it possible."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    for power in range(4):
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariance + JITTER * 10**power * identity)
        if not failed:
            return factor
    raise NotPSDError("the surrogate's covariance is not positive definite")
