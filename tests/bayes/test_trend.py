"""The trend: derivatives, what it learns of layers, parts and rates, and awkward data."""

from dataclasses import replace

import pytest
import torch

from peft_autoconfig.bayes.surrogate import fit_surrogate
from peft_autoconfig.bayes.trend import PRIORS, Layout, Trend, fit_trend

PARTS, LAYERS = 3, 8
LAYOUT = Layout(
    sizes=range(PARTS), layers=range(PARTS, PARTS + LAYERS), cost=PARTS + LAYERS + 1, rate=11
)
NUM_INPUTS = 14  # the last one is of the process alone


def points(n, seed=0):
    """Returns inputs ``n x 14``: sizes with some absent, a mask, a rate, a cost."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, NUM_INPUTS, dtype=torch.float64, generator=generator)
    X[:, LAYOUT.layers] = (X[:, LAYOUT.layers] > 0.5).double()
    X[:, 3] = 1.0  # one layer at least
    X[:, :PARTS] *= torch.rand(n, PARTS, generator=generator) > 0.3
    X[:, 0] = X[:, 0].clamp_min(0.1)
    return X


def trend(seed=0, layout=LAYOUT):
    unknowns = torch.randn(
        sum(layout.groups.values()),
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )
    return Trend(layout, unknowns, location=0.4, scale=2.0)


@pytest.mark.parametrize("layout", [LAYOUT, replace(LAYOUT, rate=None)])
def test_derivatives_are_those_of_automatic_differentiation(layout):
    X, at = points(9), trend(layout=layout)
    X[0, :PARTS] = 0  # nothing is on
    _, jacobian = at.evaluate(X)
    expected = torch.func.jacrev(lambda z: replace(at, unknowns=z).evaluate(X)[0])(at.unknowns)
    torch.testing.assert_close(jacobian, expected)
    mean, features = at.linear(X)
    torch.testing.assert_close(mean + features @ at.unknowns, at.evaluate(X)[0])


def test_scores_follow_the_formula():
    layout = Layout(sizes=range(2), layers=range(2, 5), cost=6, rate=5)
    at = Trend(layout, torch.zeros(sum(layout.groups.values())).double(), location=0.5, scale=0.2)
    x = torch.tensor([[0.25, 0.0, 1.0, 0.0, 1.0, 0.6, 0.7]], dtype=torch.float64)
    mean = {name: torch.tensor(value[0]).double() for name, value in PRIORS.items()}
    distance = (0.6 - mean["optimum"] - mean["slope"] * 0.2) / mean["width"].exp()
    capacity = 2 / 3 * 0.25 ** mean["exponent"].exp() * (-0.5 * distance**2).exp()
    learned = mean["span"].exp() * (1 - (-(capacity ** mean["shape"].exp())).exp())
    torch.testing.assert_close(at.evaluate(x)[0][0], 0.5 + 0.2 * learned)


def test_without_capacity_the_score_is_the_base():
    x = points(1)
    x[0, :PARTS] = 0
    base = trend().evaluate(x)[0]
    x[0, PARTS : PARTS + LAYERS] = 0
    torch.testing.assert_close(trend().evaluate(x)[0], base)
    assert (trend().evaluate(points(50))[0] >= base - 1e-9).all()


def test_few_scores_tell_good_layers_from_bad_ones():
    worth = torch.tensor([0.0, 0.4, 0.0, 0.05, 0.3, 0.0, 0.15, 0.1], dtype=torch.float64)

    def score(X):
        return 0.5 + 0.4 * (1 - torch.exp(-3 * X[:, 0].sqrt() * (X[:, LAYOUT.layers] @ worth)))

    errors = 0.01 * torch.randn(25, generator=torch.Generator().manual_seed(1)).double()
    X, fresh = points(25), points(300, seed=2)
    X[:, 11], fresh[:, 11] = 0.7, 0.7
    Y = score(X) + errors
    with_trend = fit_surrogate(X, Y, layout=LAYOUT).posterior(fresh)[0]
    without = fit_surrogate(X, Y).posterior(fresh)[0]
    wrong, plain = ((mean - score(fresh)).square().mean().sqrt() for mean in (with_trend, without))
    assert wrong < 0.03
    assert wrong < 0.5 * plain


def test_the_process_learns_what_the_trend_leaves_unsaid():
    X, fresh = points(60), points(200, seed=2)

    def score(X):
        return torch.sin(6 * X[:, 13]) + X[:, 3:11].mean(dim=1)

    surrogate = fit_surrogate(X, score(X), layout=LAYOUT)
    assert (surrogate.posterior(fresh)[0] - score(fresh)).square().mean().sqrt() < 0.15
    assert surrogate.model.length_scales[LAYOUT.layers].isinf().all()
    assert surrogate.model.length_scales[13] < 1


def test_where_there_is_little_data_the_model_says_so():
    X = points(12)
    Y = 0.5 + 0.3 * X[:, LAYOUT.layers].mean(dim=1)
    _, seen = fit_surrogate(X, Y, layout=LAYOUT).posterior(X)
    _, unseen = fit_surrogate(X, Y, layout=LAYOUT).posterior(points(50, seed=3))
    assert unseen.mean() > 1.5 * seen.mean()


@pytest.mark.parametrize("Y", [[0.5], [0.5, 0.5], [0.1, 0.9], [0.0, 0.0, 1.0], [1e-4, 0.0, 0.0]])
def test_few_or_constant_scores_are_no_obstacle(Y):
    Y = torch.tensor(Y, dtype=torch.float64)
    X = points(len(Y))
    assert (fit_trend(LAYOUT, X, Y) is None) == (Y.std(correction=0) == 0)
    mean, deviation = fit_surrogate(X, Y, layout=LAYOUT).posterior(points(5, seed=1))
    assert mean.isfinite().all()
    assert (deviation > 0).all()


@pytest.mark.parametrize("worst", [-1e9, -1e300])
def test_a_diverged_training_leaves_finite_beliefs(worst):
    X, Y = points(20), points(20)[:, 0].clone()
    Y[3] = worst
    mean, _ = fit_surrogate(X, Y, layout=LAYOUT).posterior(points(5, seed=1))
    assert not mean.isnan().any()
