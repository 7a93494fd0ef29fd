"""The SAAS model against its formula: priors, likelihood, and padding that tells nothing."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Gamma, HalfCauchy, MultivariateNormal, Normal

from peft_autoconfig.bayes import saas
from peft_autoconfig.bayes.gaussian_process import GaussianProcess, matern
from peft_autoconfig.bayes.saas import SMALLEST_NOISE, Inference, saas_model
from peft_autoconfig.errors import ConfigError

VALUES = {"variance": 3.0, "mean": 0.4, "noise": 0.02, "global": 0.3, "inverse": [0.5, 2.0, 0.1]}


def data(n=7):
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    return X, torch.randn(n, dtype=torch.float64, generator=generator)


def log_density(X, Y, padding):
    """Returns the density as NumPyro sees it, of data with rows of padding."""
    pytest.importorskip("numpyro")
    from numpyro.infer.util import log_density

    rows = np.zeros((padding, 3))
    present = np.r_[np.ones(len(Y)), np.zeros(padding)]
    arguments = np.r_[X.numpy(), rows], np.r_[Y.numpy(), rows[:, 0]], present
    return float(
        log_density(saas_model, arguments, {}, {k: np.array(v) for k, v in VALUES.items()})[0]
    )


def test_density_is_that_of_the_priors_and_of_a_matern_process():
    X, Y = data()
    value = {name: torch.tensor(v, dtype=torch.float64) for name, v in VALUES.items()}
    scales = (value["global"] * value["inverse"]).rsqrt()
    distances = 5**0.5 * (X[:, None] / scales - X / scales).square().sum(dim=-1).sqrt()
    kernel = 3.0 * (1 + distances + distances.square() / 3) * torch.exp(-distances)
    covariance = kernel + (0.02 + SMALLEST_NOISE) * torch.eye(7)
    expected = (
        Gamma(2.0, 0.15).log_prob(value["variance"])
        + Normal(0.0, 1.0).log_prob(value["mean"])
        + Gamma(0.9, 10.0).log_prob(value["noise"])
        + HalfCauchy(0.1).log_prob(value["global"])
        + HalfCauchy(1.0).log_prob(value["inverse"]).sum()
        + MultivariateNormal(value["mean"].expand(7), covariance).log_prob(Y)
    )
    assert log_density(X, Y, padding=0) == pytest.approx(float(expected), rel=1e-4)


def test_padding_adds_a_constant():
    X, Y = data()
    of_zero = -0.5 * math.log(2 * math.pi)  # a standard normal that is 0
    for padding in (1, 5):
        padded = log_density(X, Y, padding) - padding * of_zero
        assert padded == pytest.approx(log_density(X, Y, 0), rel=1e-5)


def test_a_process_with_matern_kernel_variance_and_mean_is_that_of_the_textbook():
    X, Y = data()
    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    process = GaussianProcess.condition(
        X[:5],
        Y[:5],
        scales,
        0.1,
        constant=0.3,
        kernel=matern,
        deviation=2.5**0.5,
    )
    distances = 5**0.5 * torch.cdist(X / scales, X / scales)
    K = 2.5 * (1 + distances + distances.square() / 3) * torch.exp(-distances)
    inverse = torch.linalg.inv(K[:5, :5] + 0.1 * torch.eye(5))
    mean, covariance = process.joint_posterior(X[5:])
    torch.testing.assert_close(mean, 0.3 + K[5:, :5] @ inverse @ (Y[:5] - 0.3))
    torch.testing.assert_close(covariance, K[5:, 5:] - K[5:, :5] @ inverse @ K[:5, 5:])
    torch.testing.assert_close(process.posterior(X[5:])[1], covariance.diagonal())


@pytest.mark.parametrize("name", ["warmup_steps", "num_samples", "thinning", "max_tree_depth"])
def test_no_steps_are_refused(name):
    with pytest.raises(ConfigError, match=f"expected {name} of at least 1, got 0"):
        Inference(**{name: 0})


def test_what_jax_compiled_is_let_go_of_now_and_then(monkeypatch):
    """Or a search of some hundred proposals would end for want of memory mappings."""
    jax = pytest.importorskip("jax")
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1))
    monkeypatch.setattr(saas, "RUNS_KEPT", 3)
    monkeypatch.setattr(saas, "_chain", Chains())
    for seed in range(6):
        saas._sample(Inference(), (np.zeros((2, 1)), np.zeros(2), np.ones(2)), seed)
    assert len(cleared) == saas._chain.cleared == 2


class Chains:
    """Stands for the chains that are kept."""

    cleared = 0

    def __call__(self, inference, shape):
        return self

    def cache_clear(self):
        self.cleared += 1

    def run(self, key, *data):
        pass

    def get_samples(self):
        return {}
