"""The surrogate: predictions on a known function, draws that agree with it, awkward data."""

import math

import pytest
import torch

from peft_autoconfig.bayes.surrogate import fit_surrogate


def data(n, noise=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    errors = torch.randn(n, dtype=torch.float64, generator=generator)
    return X, truth(X) + noise * errors


def truth(X):
    return 70 + 5 * torch.sin(3 * X[:, 0]) - 2 * X[:, 1]


def test_learns_a_function_and_its_noise():
    X, Y = data(60, noise=0.3)
    fresh, _ = data(200, seed=1)
    surrogate = fit_surrogate(X, Y)
    mean, deviation = surrogate.posterior(fresh)
    assert (mean - truth(fresh)).square().mean().sqrt() < 0.3
    assert deviation.max() < 2
    noise = math.sqrt(surrogate.model.noise) * surrogate.scale
    assert 0.2 < noise < 0.45


def test_fantasies_agree_with_the_posterior():
    X, Y = data(15, noise=0.3)
    pending, _ = data(3, seed=2)
    surrogate = fit_surrogate(X, Y)
    baseline = torch.cat([X, pending])
    fantasies = surrogate.fantasize(baseline, 4000, torch.Generator().manual_seed(0))
    mean, deviation = surrogate.posterior(baseline)
    drawn = fantasies.values * surrogate.scale + surrogate.location
    assert torch.allclose(drawn.mean(dim=0), mean, atol=0.1)
    assert torch.allclose(drawn.std(dim=0), deviation, atol=0.1)
    # By the laws of total expectation and variance the draws together say what the model says.
    fresh, _ = data(20, seed=3)
    means, spread = fantasies.posterior(fresh)
    mean, deviation = surrogate.posterior(fresh)
    total = (means.var(dim=1) + spread[:, 0].square()).sqrt() * surrogate.scale
    assert torch.allclose(means.mean(dim=1) * surrogate.scale + surrogate.location, mean, atol=0.15)
    assert torch.allclose(total, deviation, rtol=0.1)


def test_fantasies_know_their_own_points():
    X, Y = data(10, noise=0.3)
    fantasies = fit_surrogate(X, Y).fantasize(X, 8, torch.Generator().manual_seed(0))
    means, spread = fantasies.posterior(X)
    assert torch.allclose(means, fantasies.values.T, atol=0.02)
    assert spread.max() < 0.02


@pytest.mark.parametrize(
    "Y", [[0.5], [0.5, 0.5, 0.5], [0.1, 0.9], [0.5, 0.5, 0.5, 1.0], [0.0, 1e-15, 0.0]]
)
def test_few_or_constant_scores_are_no_obstacle(Y):
    Y = torch.tensor(Y, dtype=torch.float64)
    X, _ = data(len(Y))
    fresh, _ = data(5, seed=1)
    mean, deviation = fit_surrogate(X, Y).posterior(fresh)
    assert mean.isfinite().all()
    assert (deviation > 0).all()


def test_a_diverged_training_does_not_drown_the_others():
    X, Y = data(40)
    fresh, _ = data(100, seed=1)
    Y[7] = -1e9
    mean, _ = fit_surrogate(X, Y).posterior(fresh)
    agreement = torch.corrcoef(torch.stack([mean, truth(fresh)]))[0, 1]
    assert agreement > 0.5


def test_chance_is_not_cut_when_most_points_are_near_the_front():
    X, _ = data(60)
    X[12:, 0] = 0.6 + 0.4 * X[12:, 0]  # later points are where it pays
    Y = torch.where(X[:, 0] < 0.5, 0.5, 0.9 + 0.01 * X[:, 1])
    low = X[X[:, 0] < 0.3]
    assert fit_surrogate(X, Y).posterior(low)[0].mean() < 0.6


def test_scores_that_overflow_do_not_stop_it():
    X, _ = data(4)
    Y = torch.tensor([1e300, -1e300, 0.0, 1.0], dtype=torch.float64)
    mean, _ = fit_surrogate(X, Y).posterior(X)
    assert not mean.isnan().any()


def test_no_global_state_is_touched():
    X, Y = data(12, noise=0.1)
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    threads = torch.get_num_threads()
    fit_surrogate(X, Y).fantasize(X, 4, torch.Generator().manual_seed(0)).posterior(X)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)
