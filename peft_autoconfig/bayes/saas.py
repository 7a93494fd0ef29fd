"""A fully Bayesian Gaussian process that expects few inputs to matter (SAAS), sampled by NUTS.

The model of Eriksson and Jankowiak (2021, arXiv 2103.00349), with the priors that BoTorch gives it:
a Matérn-5/2 kernel whose inverse squared length scales are half-Cauchy around 0, on a global scale
that is itself half-Cauchy. Written for NumPyro here, with the data padded to few sizes: what JAX
compiles (12 to 19 CPU seconds) then serves many numbers of trials, where BoTorch's has the data
themselves compiled in.

Imports `gaussian_process`; imported by `published`. JAX and NumPyro come with the extra `saas`.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .gaussian_process import GaussianProcess, matern

__all__ = ["Inference", "fit_saas"]

PADDED_TO = 32  # numbers of points are rounded up to multiples of it
SMALLEST_NOISE = 1e-4
# Each run leaves some 600 mappings of compiled code behind, and Linux allows a process 65,530.
RUNS_KEPT = 50


@dataclass(frozen=True)
class Inference:
    """How the hyperparameters are sampled; the defaults are those of the AutoPEFT release.

    Attributes:
        warmup_steps: Steps that adapt NUTS and are thrown away, at least 1.
        num_samples: Steps after these, at least 1.
        thinning: Of them each so manieth is kept, at least 1.
        max_tree_depth: Doublings of a trajectory at most, at least 1.
    """

    warmup_steps: int = 128
    num_samples: int = 64
    thinning: int = 4
    max_tree_depth: int = 6

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")


def fit_saas(
    X: Tensor, Y: Tensor, *, inference: Inference = Inference(), seed: int
) -> list[GaussianProcess]:
    """Returns processes with hyperparameters from their posterior, one for each sample kept.

    Args:
        X: ``n x d`` inputs in [0, 1].
        Y: ``n`` scores, standardised.
        inference: How long NUTS samples.
        seed: Seed of NUTS.

    Raises:
        ConfigError: NumPyro and JAX are not installed.
    """
    padded = math.ceil(len(X) / PADDED_TO) * PADDED_TO
    inputs = np.zeros((padded, X.shape[1]), dtype=np.float32)
    scores, present = np.zeros((2, padded), dtype=np.float32)
    inputs[: len(X)], scores[: len(X)], present[: len(X)] = X.numpy(), Y.numpy(), 1
    found = _sample(inference, (inputs, scores, present), seed)
    scales = (found["global"][:, None] * found["inverse"]).rsqrt()
    return [
        GaussianProcess.condition(
            X,
            Y,
            scales[i],
            SMALLEST_NOISE + float(found["noise"][i]),
            constant=float(found["mean"][i]),
            kernel=matern,
            deviation=float(found["variance"][i].sqrt()),
        )
        for i in range(0, len(scales), inference.thinning)
    ]


def _sample(inference: Inference, data: tuple[Any, ...], seed: int) -> dict[str, Tensor]:
    """Returns all samples of each hyperparameter, the number of samples first."""
    try:
        import jax
    except ModuleNotFoundError as error:
        raise ConfigError(
            "expected NumPyro and JAX for the SAAS model, got neither; install them with "
            'pip install "peft-autoconfig[saas]", or use BayesianSampler'
        ) from error
    if next(_runs) % RUNS_KEPT == 0:
        _chain.cache_clear()
        untyped: Any = jax
        untyped.clear_caches()
    chain = _chain(inference, data[0].shape)
    chain.run(jax.random.PRNGKey(seed), *data)
    return {
        name: torch.from_numpy(np.array(values, dtype=np.float64))
        for name, values in chain.get_samples().items()
    }


_runs = itertools.count(1)


@lru_cache(maxsize=8)
def _chain(inference: Inference, shape: tuple[int, int]) -> Any:
    """Returns a chain for data of a shape, compiled once."""
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(saas_model, dense_mass=True, max_tree_depth=inference.max_tree_depth)
    return MCMC(
        kernel,
        num_warmup=inference.warmup_steps,
        num_samples=inference.num_samples,
        progress_bar=False,
        jit_model_args=True,
    )


def saas_model(X: Any, Y: Any, present: Any) -> None:
    """States the model to NumPyro.

    Args:
        X: ``n x d``.
        Y: ``n``.
        present: ``n``, 1 for a point and 0 for padding, which then tells nothing.
    """
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as prior

    variance = numpyro.sample("variance", prior.Gamma(2.0, 0.15))
    mean = numpyro.sample("mean", prior.Normal(0.0, 1.0))
    noise = SMALLEST_NOISE + numpyro.sample("noise", prior.Gamma(0.9, 10.0))
    everywhere = numpyro.sample("global", prior.HalfCauchy(0.1))
    inverse = numpyro.sample("inverse", prior.HalfCauchy(jnp.ones(X.shape[1])))
    scaled = X * jnp.sqrt(everywhere * inverse)
    squares = jnp.square(scaled[:, None] - scaled[None]).sum(axis=-1)
    distances = jnp.sqrt(5 * jnp.maximum(squares, 1e-30))
    correlations = (1 + distances + distances**2 / 3) * jnp.exp(-distances)
    covariance = variance * correlations * present[:, None] * present
    diagonal = jnp.where(present > 0, noise, 1.0)
    numpyro.sample(
        "scores",
        prior.MultivariateNormal(mean * present, covariance + jnp.diag(diagonal)),
        obs=Y,
    )
