"""The sampler that starts from earlier runs: what it gains, and that nothing makes it stumble."""

import numpy as np
import pytest
from optuna.trial import TrialState

from peft_autoconfig.bayes.surrogate import fit_surrogate
from peft_autoconfig.errors import SearchError
from peft_autoconfig.sampler import EarlierRun, TransferSampler, startup_design
from peft_autoconfig.space import SearchSpace

from .cases import (
    SPACE,
    THREE_POINTS,
    finished,
    hypervolume,
    new_study,
    objective,
    points,
    random_params,
    score,
    search,
)


def run_of(params, scores, space=SPACE):
    return EarlierRun.of("earlier", zip(params, scores, strict=True), space)


def related(n=30):
    """Another task with the same useful layers, its scores on another scale."""
    params = random_params(n, seed=5)
    return run_of(params, [40 + 3 * score(p) for p in params])


def unrelated(n=30):
    params = random_params(n, seed=5)
    return run_of(params, np.random.default_rng(0).permutation([score(p) for p in params]))


def warm_search(n_trials, *earlier, seed=0, directions=("maximize", "minimize"), sign=1, **options):
    study = new_study(TransferSampler(SPACE, earlier, seed, **options), directions)
    study.optimize(lambda t: (sign * objective(t)[0], 1.0), n_trials=n_trials)
    return study


def volume(study):
    for trial in study.trials:
        trial.values[1] = SPACE.num_params(SPACE.config(trial.params))
    return hypervolume(study.trials)


def test_a_related_run_is_worth_evaluations_and_an_unrelated_one_costs_few():
    cold = np.mean([hypervolume(search(16, seed).trials) for seed in range(2)])
    found = {
        earlier: np.mean([volume(warm_search(16, earlier(), seed=seed)) for seed in range(2)])
        for earlier in (related, unrelated)
    }
    assert found[related] > 1.05 * cold
    assert found[unrelated] > 0.9 * cold


def test_without_earlier_runs_it_is_the_bayesian_sampler():
    empty = EarlierRun("none", np.empty((0, 10)), np.empty(0))
    assert points(warm_search(15, empty)) == points(search(15))


def test_half_of_the_design_makes_way_for_the_earlier_front():
    sampler = TransferSampler(SPACE, [related()], 0)
    usual = {tuple(x) for x in startup_design(SPACE, 12, 0)}
    new = [x for x in sampler._design if tuple(x) not in usual]
    assert len(sampler._design) == 12
    assert 1 <= len(new) <= 6
    assert {tuple(x) for x in new} <= {tuple(x) for x in related().points}


def test_it_is_deterministic_repeats_nothing_and_goes_on_where_it_was():
    first, again = (warm_search(14, related(), unrelated()) for _ in range(2))
    assert points(first) == points(again)
    assert len(set(points(first))) == 14
    study = new_study(TransferSampler(SPACE, [related(), unrelated()], 0))
    for _ in range(2):
        study.sampler = TransferSampler(SPACE, [related(), unrelated()], 0)
        study.optimize(lambda t: (objective(t)[0], 1.0), n_trials=7)
    assert points(study) == points(first)


def test_scores_to_be_minimised_lead_to_the_same_proposals():
    up = warm_search(15, related())
    down = warm_search(15, related(), directions=("minimize", "minimize"), sign=-1)
    assert points(up) == points(down)


@pytest.mark.parametrize(
    "scores", [[0.5], [0.5] * 3, [1e300, -1e300, 0.0], [0.5, 0.5 + 1e-16, 0.5], [3.0, 2.0, 1.0]]
)
def test_odd_earlier_scores_are_lived_with(scores):
    earlier = run_of(random_params(len(scores), seed=2), scores)
    study = warm_search(6, earlier, n_startup=4)
    assert len(set(points(study))) == 6


def test_odd_trials_are_lived_with():
    study = new_study(TransferSampler(SPACE, [related()], 0, n_startup=1))
    first, second, third = random_params(3)
    study.add_trial(finished(SPACE, first, state=TrialState.FAIL))
    study.add_trial(finished(SPACE, second, state=TrialState.PRUNED))
    study.add_trial(finished(SPACE, third, values=[0.5, 1.0]))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 5


def test_of_a_long_run_a_sample_is_modelled(monkeypatch):
    modelled = []

    def fit(X, Y, **options):
        modelled.append(len(Y))
        return fit_surrogate(X, Y, **options)

    monkeypatch.setattr("peft_autoconfig.sampler.transfer.fit_surrogate", fit)
    assert len(TransferSampler(SPACE, [related(300)], 0)._design) == 12
    assert modelled == [128]


def test_a_space_of_three_points_is_exhausted_and_the_study_stops():
    earlier = EarlierRun("three", THREE_POINTS.points(), np.array([0.1, 0.2, 0.3]))
    study = new_study(TransferSampler(THREE_POINTS, [earlier], 0))
    study.optimize(lambda t: (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(t))), n_trials=10)
    assert len(study.trials) == len(set(points(study))) == 3


def test_a_study_of_any_optuna_sampler_can_be_an_earlier_run(caplog):
    study = new_study(None, directions=("minimize", "minimize"), study_name="losses")
    params = random_params(6)
    for number, each in enumerate(params):
        study.add_trial(finished(SPACE, each, values=[float(number), 1.0]))
    study.add_trial(finished(SPACE, params[0], state=TrialState.FAIL))
    run = EarlierRun.of_study(study, SPACE)
    assert (run.name, run.scores.tolist()) == ("losses", [0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
    assert "passed over" not in caplog.text
    fewer_rates = SearchSpace.from_dict(SPACE.to_dict() | {"learning_rates": [1e-3]})
    kept = EarlierRun.of_study(study, fewer_rates, searched=SPACE)
    expected = [-i for i, each in enumerate(params) if each["learning_rate"] == 1e-3]
    assert kept.scores.tolist() == expected
    assert f"{6 - len(expected)} are not in this space" in caplog.text
    with pytest.raises(SearchError, match="two objectives"):
        EarlierRun.of_study(new_study(None, directions=("maximize",)), SPACE)


def test_what_varied_in_the_earlier_run_alone_is_not_forgotten(caplog):
    ranked = SearchSpace.from_dict(SPACE.to_dict() | {"lora_ranks": (0, 4), "low_rank_size": 300})
    with_rank = [params | {"lora_rank": 4 * (i % 2)} for i, params in enumerate(random_params(6))]
    run = EarlierRun.of(
        "ranked", [(p, float(i)) for i, p in enumerate(with_rank)], SPACE, searched=ranked
    )
    assert run.scores.tolist() == [0, 2, 4]
    assert "3 are not in this space" in caplog.text
