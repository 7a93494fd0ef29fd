"""The Gaussian process against textbook formulas, finite differences and BoTorch."""

import math

import numpy as np
import pytest
import torch

from peft_autoconfig.bayes import gaussian_process as module
from peft_autoconfig.bayes.gaussian_process import GaussianProcess, cholesky, fit


def data(n=20, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, d, dtype=torch.float64, generator=generator)
    Y = torch.sin(4 * X[:, 0]) + X[:, 1] ** 2
    Y = Y + 0.1 * torch.randn(n, dtype=torch.float64, generator=generator)
    return X, (Y - Y.mean()) / Y.std()


@pytest.mark.parametrize("deviation", [1.0, 0.6])
def test_posterior_is_that_of_the_textbook(deviation):
    X, Y = data()
    fresh, _ = data(5, seed=1)
    scales, noise = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64), 0.03
    process = GaussianProcess.condition(X, Y, scales, noise, deviation=deviation)

    def kernel(A, B):
        differences = (A[:, None] - B[None]).numpy() / scales.numpy()
        return deviation**2 * np.exp(-0.5 * (differences**2).sum(axis=-1))

    inverse = np.linalg.inv(kernel(X, X) + noise * np.eye(20))
    ones, y = np.ones(20), Y.numpy()
    constant = ones @ inverse @ y / (ones @ inverse @ ones)
    mean = constant + kernel(fresh, X) @ inverse @ (y - constant)
    covariance = kernel(fresh, fresh) - kernel(fresh, X) @ inverse @ kernel(X, fresh)
    np.testing.assert_allclose(process.joint_posterior(fresh)[0], mean, atol=1e-10)
    np.testing.assert_allclose(process.joint_posterior(fresh)[1], covariance, atol=1e-10)
    np.testing.assert_allclose(process.posterior(fresh)[0], mean, atol=1e-10)
    np.testing.assert_allclose(process.posterior(fresh)[1], covariance.diagonal(), atol=1e-10)


def test_a_line_search_may_step_beyond_all_floats():
    X, Y = data()
    value, gradient = module._Evidence(X, Y)(np.full(5, 800.0))
    assert math.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("has_trend", [False, True])
def test_gradient_against_finite_differences(seed, has_trend):
    X, Y = data(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    evidence = module._Evidence(X, Y, features @ features.T if has_trend else None)
    logs = np.random.default_rng(seed).normal(size=6 if has_trend else 5)
    _, gradient = evidence(logs)
    for i in range(len(logs)):
        step = 1e-5 * np.eye(len(logs))[i]
        above, below = (evidence(logs + s)[0] for s in (step, -step))
        assert gradient[i] == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-8)


def test_the_modes_are_the_most_probable_before_any_score():
    X, Y = data(5)
    for linear in (None, torch.zeros(5, 5, dtype=torch.float64)):
        evidence = module._Evidence(X, Y, linear)
        means, deviations = evidence._priors
        # of the length scales and the noise the value is log-normal, of the deviation the logarithm
        logs = evidence.modes + np.linspace(-3, 3, 2001)[:, None]
        jacobians = np.where(np.arange(len(means)) < 5, logs, 0)
        best = (jacobians + 0.5 * ((logs - means) / deviations) ** 2).argmin(axis=0)
        assert best.tolist() == [1000] * len(means)


def test_it_is_botorchs_model_fitted_at_least_as_well():
    botorch = pytest.importorskip("botorch.models")
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    X, Y = data(30)
    fresh, _ = data(8, seed=1)
    evidence = module._Evidence(X, Y)
    theirs = botorch.SingleTaskGP(X, Y[:, None], outcome_transform=None)
    mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(theirs.likelihood, theirs))
    kernel, likelihood = theirs.covar_module, theirs.likelihood
    mll.train()
    value = -mll(theirs(X), Y).item() - 0.5 * math.log(2 * math.pi)
    scales = kernel.lengthscale.detach()[0]
    logs = np.append(scales.log().numpy(), math.log(likelihood.noise.item()))
    priors = [kernel.lengthscale_prior, likelihood.noise_covar.noise_prior]
    lost = sum(0.5 * math.log(2 * math.pi) + math.log(float(prior.scale)) for prior in priors[1:])
    lost += 4 * (0.5 * math.log(2 * math.pi) + math.log(float(priors[0].scale)))
    assert evidence(logs)[0] == pytest.approx(value - lost / 30, abs=1e-4)
    ours = fit(X, Y, maxiter=200)
    found = np.append(ours.length_scales.log().numpy(), math.log(ours.noise))
    assert evidence(found)[0] <= evidence(logs)[0] + 1e-6
    theirs.eval()
    at_theirs = GaussianProcess.condition(X, Y, scales, likelihood.noise.item())
    posterior = theirs(fresh)
    np.testing.assert_allclose(at_theirs.posterior(fresh)[0], posterior.mean.detach(), atol=1e-3)
    np.testing.assert_allclose(
        at_theirs.posterior(fresh)[1], posterior.variance.detach(), atol=1e-3
    )


def test_length_scales_tell_what_matters():
    X, Y = data(60)
    scales = fit(X, Y, maxiter=100).length_scales
    assert scales[:2].max() < scales[2:].min()
    assert fit(X, Y, maxiter=1).noise != fit(X, Y, maxiter=100).noise


@pytest.mark.parametrize("n", [1, 4])
def test_where_nothing_can_be_learned_the_priors_decide(n):
    X = data()[0][:n]
    process = fit(X, torch.zeros(n, dtype=torch.float64), maxiter=50)
    assert process.length_scales.tolist() == pytest.approx([2 * math.exp(math.sqrt(2) - 3)] * 4)
    assert process.noise == pytest.approx(math.exp(-5))
    assert process.posterior(X)[0].abs().max() < 1e-9


def test_equal_points_and_a_fit_that_goes_astray_are_lived_with(monkeypatch, caplog):
    X, Y = data(6)
    process = fit(X[[0, 0, 0, 1, 2, 3]], Y, maxiter=50)
    assert process.posterior(X)[0].isfinite().all()
    lost = type("Found", (), {"x": np.full(5, np.nan), "message": "lost"})
    monkeypatch.setattr(module, "minimize", lambda *_, **__: lost)
    process = fit(X, Y, maxiter=50)
    assert "lost" in caplog.text
    assert process.posterior(X)[0].isfinite().all()


def test_cholesky_adds_as_little_as_needed():
    singular = torch.ones(3, 3, dtype=torch.float64)
    factor = cholesky(singular)
    assert torch.allclose(factor @ factor.T, singular, atol=1e-5)
    with pytest.raises(ValueError, match="positive definite"):
        cholesky(-singular)
