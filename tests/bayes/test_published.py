"""The published search's parts: normal scores, mutations, and walks to what is worth most."""

import pytest
import torch

from peft_autoconfig.bayes.gaussian_process import GaussianProcess, matern
from peft_autoconfig.bayes.lattice import Lattice
from peft_autoconfig.bayes.published import mutated, normal_scores, propose_published
from peft_autoconfig.bayes.surrogate import Surrogate

from .test_proposal import ALLOWED, LATTICE, generator, known, score


def surrogates(X, Y, constants=(0.0, 0.2)):
    scales = torch.tensor([1.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    return [
        Surrogate(
            GaussianProcess.condition(
                X,
                Y,
                scales,
                1e-3,
                constant=constant,
                kernel=matern,
                deviation=2.0**0.5,
            ),
            location=0.0,
            scale=1.0,
        )
        for constant in constants
    ]


def test_normal_scores_are_quantiles_of_ranks_and_ties_share():
    found = normal_scores(torch.tensor([10.0, -3.0, 10.0, 11.0], dtype=torch.float64))
    shares = torch.special.ndtr(found)
    assert shares.tolist() == pytest.approx([0.5, 0.125, 0.5, 0.875])


def test_mutations_change_one_dimension_and_reach_every_neighbour():
    x = ALLOWED[10:11]
    moves = mutated(LATTICE, x.repeat(4000, 1), generator())
    assert ((moves != x).sum(dim=1) == 1).all()
    one_change = ALLOWED[((ALLOWED != x).sum(dim=1) == 1)]
    assert set(LATTICE.keys(moves)) == set(LATTICE.keys(one_change))


def test_a_point_that_may_not_change_stays():
    only = Lattice((1,), lambda X: torch.ones(len(X)), lambda X: X, max_cost=1.0)
    x = torch.zeros(3, 1, dtype=torch.float64)
    assert torch.equal(mutated(only, x, generator()), x)


def test_what_is_proposed_is_new_and_worth_more_than_most():
    evaluated = ALLOWED[::4]
    facts = known(evaluated)
    models = surrogates(evaluated, normal_scores(score(evaluated)))
    found = propose_published(LATTICE, facts, models, generator())
    assert LATTICE.keys(found[None])[0] not in facts.seen
    again = propose_published(LATTICE, facts, models, generator())
    assert torch.equal(found, again)
    # of the points that are left it is among the best scores at its cost
    left = LATTICE.unseen(ALLOWED, facts.seen)
    cheaper = left[LATTICE.cost(left) <= LATTICE.cost(found[None])]
    assert (score(found[None]) >= score(cheaper)).double().mean() > 0.8


def test_pending_points_are_not_proposed_again_and_nothing_left_is_none():
    evaluated, pending = ALLOWED[::4], ALLOWED[1::4]
    facts = known(evaluated, pending)
    models = surrogates(evaluated, normal_scores(score(evaluated)))
    found = propose_published(LATTICE, facts, models, generator())
    assert LATTICE.keys(found[None])[0] not in facts.seen
    everything = known(ALLOWED)
    assert propose_published(LATTICE, everything, models, generator()) is None
