"""Lattice moves, and proposals on a lattice small enough to know the answer."""

import itertools
from dataclasses import replace

import pytest
import torch

from peft_autoconfig.bayes import proposal
from peft_autoconfig.bayes.lattice import Lattice
from peft_autoconfig.bayes.pareto import is_non_dominated
from peft_autoconfig.bayes.proposal import Knowledge, propose
from peft_autoconfig.bayes.surrogate import fit_surrogate
from peft_autoconfig.bayes.trend import Layout

LEVELS = (5, 2, 2, 2)


def cost(X):
    counts = 1 + 4 * X[:, 0] * X[:, 1:].sum(dim=1)
    return torch.where(X[:, 1:].sum(dim=1) > 0, counts, torch.inf)


def inputs(X):
    return torch.cat([X, cost(X)[:, None] / 13], dim=1)


LATTICE = Lattice(LEVELS, cost, lambda X: X, max_cost=13.0, interchangeable=range(1, 4))
LAYOUT = Layout(sizes=range(1), layers=range(1, 4), cost=4)
WITH_TREND = replace(LATTICE, inputs=inputs, layout=LAYOUT)
POINTS = torch.tensor(
    [*itertools.product((0, 0.25, 0.5, 0.75, 1), (0, 1), (0, 1), (0, 1))], dtype=torch.float64
)
ALLOWED = POINTS[cost(POINTS).isfinite()]


def score(X):
    return X[:, 0].sqrt() * (0.5 * X[:, 1] + 0.3 * X[:, 2] + 0.1 * X[:, 3])


def known(evaluated, pending=ALLOWED[:0]):
    seen = set(LATTICE.keys(torch.cat([evaluated, pending])))
    return Knowledge(evaluated, score(evaluated), pending, seen)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_neighbors_are_all_single_moves_and_swaps():
    x = torch.tensor([[0.5, 1, 0, 0]], dtype=torch.float64)
    expected = {(k, 1, 0, 0) for k in (0, 1, 3, 4)} | {(2, 1, 1, 0), (2, 1, 0, 1)}
    expected |= {(2, 0, 1, 0), (2, 0, 0, 1)}  # swaps; all layers off is not allowed
    assert set(LATTICE.keys(LATTICE.neighbors(x))) == expected


def test_a_limit_draws_evenly_among_the_moves():
    x = torch.tensor([[0.5, 1, 0, 0]], dtype=torch.float64)
    every = set(LATTICE.keys(LATTICE.neighbors(x)))
    drawn = [LATTICE.neighbors(x, limit=3, generator=generator(seed)) for seed in range(40)]
    assert max(map(len, drawn)) == 3
    assert {key for points in drawn for key in LATTICE.keys(points)} == every
    assert torch.equal(LATTICE.neighbors(x, limit=99), LATTICE.neighbors(x))


def test_unseen_drops_repeats_and_what_was_seen():
    X = torch.cat([ALLOWED[:3], ALLOWED[:3]])
    left = LATTICE.unseen(X, set(LATTICE.keys(ALLOWED[:1])))
    assert sorted(LATTICE.keys(left)) == sorted(LATTICE.keys(ALLOWED[1:3]))


@pytest.mark.parametrize("lattice", [LATTICE, WITH_TREND])
def test_the_known_front_is_found(lattice):
    truth = is_non_dominated(score(ALLOWED), cost(ALLOWED))
    evaluated = ALLOWED[[0, 17, 34]]
    while len(evaluated) < 24:
        x = propose(lattice, known(evaluated), ALLOWED, generator(len(evaluated)))
        assert LATTICE.keys(x[None])[0] not in LATTICE.keys(evaluated)
        evaluated = torch.cat([evaluated, x[None]])
    found = set(LATTICE.keys(evaluated)) & set(LATTICE.keys(ALLOWED[truth]))
    assert len(found) >= 0.8 * truth.sum()


@pytest.fixture
def floors(monkeypatch):
    """The floors of the acquisition functions that are made, in their order."""
    floors = []

    class Watched(proposal.LogNoisyEHVI):
        def __init__(self, fantasies, costs, reference):
            floors.append(reference[0])
            super().__init__(fantasies, costs, reference)

    monkeypatch.setattr(proposal, "LogNoisyEHVI", Watched)
    return floors


def test_later_scores_do_not_lift_the_floor(floors):
    rising = ALLOWED[score(ALLOWED).argsort()]
    for evaluated in (rising[:12], rising):
        propose(LATTICE, replace(known(evaluated), seen=set()), ALLOWED, generator())
        scores = score(evaluated)
        floors[-1] = float(floors[-1] * scores.std() + scores.mean())
    assert floors[1] == pytest.approx(floors[0], abs=0.02)
    assert floors[1] < float(score(rising).quantile(0.25)) - 0.05


def test_candidates_are_only_where_it_starts():
    evaluated = ALLOWED[[0, 5, 17, 22, 28, 30, 34]]
    best = propose(LATTICE, known(evaluated), ALLOWED, generator())
    reached = propose(LATTICE, known(evaluated), ALLOWED[1:2], generator())
    assert torch.equal(best, reached)


def test_a_pending_point_changes_the_next_one():
    evaluated = ALLOWED[[0, 17, 34]]
    first = propose(LATTICE, known(evaluated), ALLOWED, generator())
    waiting = known(evaluated, pending=first[None])
    second = propose(LATTICE, waiting, ALLOWED, generator())
    assert not torch.equal(first, second)
    # It is not only barred: what it will tell is taken into account.
    barred = Knowledge(waiting.train_X, waiting.train_Y, ALLOWED[:0], waiting.seen)
    third = propose(LATTICE, barred, ALLOWED, generator())
    assert (second - third).abs().sum() > 0


@pytest.mark.parametrize("n", [1, 2])
def test_one_score_is_enough(n):
    evaluated = ALLOWED[[3, 3]][:n]  # two equal points as well
    x = propose(LATTICE, known(evaluated), ALLOWED, generator())
    assert LATTICE.keys(x[None])[0] in LATTICE.keys(ALLOWED)


def test_same_generator_same_point():
    evaluated = ALLOWED[[0, 17, 34]]
    proposals = [propose(LATTICE, known(evaluated), ALLOWED, generator(7)) for _ in range(2)]
    assert torch.equal(*proposals)


def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="has not been seen"):
        propose(LATTICE, known(ALLOWED), ALLOWED, generator())


def test_every_fourth_proposal_is_by_a_model_without_a_trend(monkeypatch):
    layouts = []

    def watched(X, Y, *, layout):
        layouts.append(layout)
        return fit_surrogate(X, Y, layout=layout)

    monkeypatch.setattr(proposal, "fit_surrogate", watched)
    for n, m in ((4, 0), (4, 1), (5, 0), (7, 0), (5, 3)):
        pending = ALLOWED[20 : 20 + m]
        propose(WITH_TREND, known(ALLOWED[:n], pending), ALLOWED, generator())
    assert layouts == [None, LAYOUT, LAYOUT, LAYOUT, None]


def test_the_floor_is_low_where_the_model_knows_that_nothing_comes_of_nothing(floors):
    evaluated = ALLOWED[[0, 5, 11, 17, 22, 28, 30, 34]]
    for layout in (None, LAYOUT):
        at = known(evaluated)
        surrogate = fit_surrogate(inputs(at.train_X), at.train_Y, layout=layout)
        proposal.choose(WITH_TREND, at, surrogate, ALLOWED, generator())
        believed = surrogate.posterior(inputs(at.train_X))[0]
        lowest = surrogate.standardize(float(believed.min()))
        assert (floors[-1] == pytest.approx(lowest)) == (layout is LAYOUT)
    assert floors[1] < floors[0]
