"""The front by posterior means: nearer to the truth than the observed one, and open about doubt."""

import numpy as np
import pytest
from optuna.trial import TrialState

from peft_autoconfig.bayes.surrogate import fit_surrogate
from peft_autoconfig.errors import SearchError
from peft_autoconfig.sampler import believed_front
from peft_autoconfig.space import SearchSpace

from .cases import SPACE, finished, new_study, random_params, score


def params_count(params):
    return SPACE.num_params(SPACE.config(params))


def study_of(params, scores, sign=1.0):
    study = new_study(None, directions=("maximize" if sign > 0 else "minimize", "minimize"))
    for each, value in zip(params, scores, strict=True):
        study.add_trial(finished(SPACE, each, values=[sign * value, float(params_count(each))]))
    return study


def noisy(n, noise, seed=0):
    params = random_params(n, seed)
    draws = np.random.default_rng(seed).standard_normal(n)
    return params, [score(p) + noise * d for p, d in zip(params, draws, strict=True)]


def true_loss(members, params):
    """How far the members' claimed scores are from the truth, on average."""
    return np.mean([abs(claimed - score(params[number])) for number, claimed in members])


def observed_front(params, scores):
    front, best = [], -np.inf
    for cost, value, i in sorted(
        (params_count(p), -s, i) for i, (p, s) in enumerate(zip(params, scores, strict=True))
    ):
        assert cost > 0
        if -value > best:
            best = -value
            front.append((i, -value))
    return front


@pytest.mark.parametrize("seed", range(3))
def test_its_scores_are_nearer_to_the_truth_than_those_observed(seed):
    params, scores = noisy(60, noise=0.1, seed=seed)
    believed = [(t.number, t.score) for t in believed_front(study_of(params, scores), SPACE)]
    assert true_loss(believed, params) < true_loss(observed_front(params, scores), params)


def test_of_very_many_scores_those_near_the_front_are_modelled(monkeypatch):
    params, scores = noisy(200, noise=0.05)
    modelled = []
    monkeypatch.setattr(
        "peft_autoconfig.sampler.believed.fit_surrogate",
        lambda X, Y, **options: modelled.append(Y) or fit_surrogate(X, Y, **options),
    )
    monkeypatch.setattr("peft_autoconfig.sampler.believed.MOST_MODELLED", 80)
    part = [(t.number, t.score) for t in believed_front(study_of(params, scores), SPACE)]
    (seen,) = modelled
    assert len(seen) == 80
    assert {score for _, score in observed_front(params, scores)} <= {*seen.tolist()}
    assert true_loss(part, params) < true_loss(observed_front(params, scores), params)


def test_without_noise_it_is_the_observed_front():
    params, scores = noisy(80, noise=0.0)
    believed = believed_front(study_of(params, scores), SPACE)
    shared = {t.number for t in believed} & {i for i, _ in observed_front(params, scores)}
    assert len(shared) >= 0.7 * len(believed)
    assert [t.num_params for t in believed] == sorted(
        params_count(params[t.number]) for t in believed
    )
    assert [t.score for t in believed] == sorted(t.score for t in believed)


def test_repeats_bring_scores_nearer_to_the_truth():
    params, scores = noisy(30, noise=0.1)
    few = believed_front(study_of(params, scores), SPACE)
    generator = np.random.default_rng(9)
    again = [score(p) + 0.1 * generator.standard_normal() for p in params * 5]
    many = believed_front(study_of([*params, *params * 5], [*scores, *again]), SPACE)
    claims = [[(t.number % 30, t.score) for t in front] for front in (few, many)]
    assert true_loss(claims[1], params) < 0.5 * true_loss(claims[0], params)
    assert few[0].confidence == many[0].confidence == 1
    assert all(0.5 <= t.confidence <= 1 for t in many)
    assert len({t.num_params for t in many}) == len(many)


def test_scores_to_be_minimised_come_back_as_they_went_in():
    params, scores = noisy(30, noise=0.05)
    up = believed_front(study_of(params, scores), SPACE)
    down = believed_front(study_of(params, scores, sign=-1.0), SPACE)
    assert [t.number for t in up] == [t.number for t in down]
    assert [t.score for t in down] == pytest.approx([-t.score for t in up])


def test_few_and_bad_trials():
    study = new_study(None)
    assert believed_front(study, SPACE) == []
    first, second, third = random_params(3)
    study.add_trial(finished(SPACE, first, state=TrialState.FAIL))
    study.add_trial(finished(SPACE, second, state=TrialState.PRUNED))
    assert believed_front(study, SPACE) == []
    study.add_trial(finished(SPACE, third, values=[0.5, 1.0]))
    (only,) = believed_front(study, SearchSpace.from_dict(SPACE.to_dict()))
    assert (only.number, only.num_params) == (2, params_count(third))
    with pytest.raises(SearchError, match="two objectives"):
        believed_front(new_study(None, directions=("maximize",)), SPACE)


def test_equal_scores_leave_the_cheapest():
    params, _ = noisy(10, noise=0.0)
    believed = believed_front(study_of(params, [0.5] * 10), SPACE)
    assert believed[0].num_params == min(map(params_count, params))
