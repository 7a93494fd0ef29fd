"""Log-EHVI with known cost against Monte Carlo and against the definition."""

import math

import pytest
import torch

from peft_autoconfig.bayes.acquisition import LogNoisyEHVI, log_expected_improvement
from peft_autoconfig.bayes.pareto import hypervolume
from peft_autoconfig.bayes.surrogate import fit_surrogate


def fantasies(num_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(8, 2, dtype=torch.float64, generator=generator)
    Y = X.sum(dim=1) + 0.2 * torch.randn(8, dtype=torch.float64, generator=generator)
    costs = X[:, 0].clone()
    drawn = fit_surrogate(X, Y).fantasize(X, num_samples, torch.Generator().manual_seed(1))
    return drawn, costs


def test_closed_form_is_the_average_gain_of_hypervolume():
    drawn, costs = fantasies(4)
    reference = (-1.0, 0.9)  # some baseline points lie beyond it
    X = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    X_costs = torch.tensor([0.05, 0.5, 0.85], dtype=torch.float64)
    values = LogNoisyEHVI(drawn, costs, reference)(X, X_costs)
    mean, deviation = drawn.posterior(X)
    normal = torch.randn(1500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for i, value in enumerate(values):
        gains = []
        for s, scores in enumerate(drawn.values):
            before = hypervolume(scores, costs, reference)
            for z in normal:
                y = mean[i, s] + deviation[i, 0] * z
                both = torch.cat([scores, y[None]]), torch.cat([costs, X_costs[i][None]])
                gains.append(hypervolume(*both, reference) - before)
        expected, error = torch.tensor(gains).mean(), torch.tensor(gains).std() / len(gains) ** 0.5
        assert abs(value.exp() - expected) < 5 * error + 1e-9


def test_chunks_change_nothing_and_points_beyond_the_reference_are_worthless():
    drawn, costs = fantasies(4)
    acquisition = LogNoisyEHVI(drawn, costs, (-1.0, 0.9))
    X = torch.rand(600, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    X_costs = X[:, 1].clone()
    values = acquisition(X, X_costs)
    single = torch.cat([acquisition(X[i : i + 1], X_costs[i : i + 1]) for i in range(0, 600, 50)])
    assert torch.allclose(values[::50], single)
    assert values[X_costs >= 0.9].eq(-math.inf).all()
    assert values[X_costs < 0.9].isfinite().all()


@pytest.mark.parametrize("z", [5.0, 0.0, -0.999, -1.001, -5.0, -30.0])
def test_log_expected_improvement_against_quadrature(z):
    deviation, level = torch.tensor(0.3, dtype=torch.float64), torch.tensor(2.0)
    mean = level + z * deviation
    t = torch.linspace(0, 12, 400_001, dtype=torch.float64)
    # E[max(y - level, 0)] / deviation = integral of t phi(t - z); phi(-z) is taken out first.
    integral = torch.trapezoid(t * torch.exp(-0.5 * t * t + t * z), t)
    expected = math.log(integral) - 0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(0.3)
    assert log_expected_improvement(mean, deviation, level).item() == pytest.approx(expected)


def test_log_expected_improvement_is_monotone_very_far_below():
    mean = -torch.logspace(-1, 6, 300, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    values = log_expected_improvement(mean, one, torch.zeros(1, dtype=torch.float64))
    assert values.isfinite().all()
    assert (values.diff() < 0).all()
