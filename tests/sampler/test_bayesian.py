"""The sampler in Optuna studies: it searches well and goes on where it was."""

import pytest
from optuna.trial import TrialState

from peft_autoconfig.sampler import BayesianSampler, startup_design
from peft_autoconfig.sampler.history import read_history
from peft_autoconfig.space import SearchSpace

from .cases import (
    SPACE,
    finished,
    hypervolume,
    new_study,
    objective,
    points,
    random_params,
    score,
    search,
)


@pytest.fixture(scope="module")
def searched():
    return search(30)


def test_beats_stratified_random_search(searched):
    ours = [hypervolume(study.trials) for study in (searched, search(30, 1), search(30, 2))]
    randoms = []
    for seed in range(10):
        study = new_study(None)
        for params in random_params(30, seed):
            study.enqueue_trial(params)
        study.optimize(objective, n_trials=30)
        randoms.append(hypervolume(study.trials))
    assert sum(ours) / len(ours) > max(randoms)
    assert min(ours) > sum(randoms) / len(randoms)


def test_proposals_are_deterministic_and_never_repeat(searched):
    again = search(18)
    assert points(again) == points(searched)[:18]
    assert len(set(points(searched))) == 30
    assert points(search(3, seed=1)) != points(again)[:3]


def test_a_resumed_search_goes_on_where_it_was(searched, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    for n_trials in (8, 8):
        sampler = BayesianSampler(SPACE, 0)
        study = new_study(sampler, storage=storage, study_name="s", load_if_exists=True)
        study.optimize(objective, n_trials=n_trials)
    assert points(study) == points(searched)[:16]


def test_scores_to_be_minimised_lead_to_the_same_proposals(searched):
    study = new_study(BayesianSampler(SPACE, 0), directions=("minimize", "minimize"))
    study.optimize(lambda t: (-objective(t)[0], 1.0), n_trials=16)
    assert points(study) == points(searched)[:16]


def test_a_low_rank_part_is_in_the_startup_and_searched():
    space = SearchSpace.from_dict(SPACE.to_dict() | {"lora_ranks": (0, 4, 8), "low_rank_size": 300})
    design = [space.decode(x)[0] for x in startup_design(space, 12, 0)]
    everywhere = [c for c in design if c.layers_to_transform is None]
    alone = [(4, 0, 0, 0), (0, 16, 0, 0), (0, 0, 16, 0), (0, 0, 0, 8)]
    assert set(alone) <= {
        (c.serial_bottleneck_size, c.parallel_bottleneck_size, c.prefix_length, c.lora_rank)
        for c in everywhere
    }
    assert sum(c.lora_rank > 0 for c in design) >= 4
    study = new_study(BayesianSampler(space, 0, n_startup=3))

    def rises_with_the_rank(trial):
        config = space.suggest(trial)
        return 0.1 * config.lora_rank, space.num_params(config)

    # the model expects layers to matter, and here they do not
    study.optimize(rises_with_the_rank, n_trials=12)
    assert len(set(points(study))) == 12
    assert max(trial.params["lora_rank"] for trial in study.trials[3:]) == 8


def test_pending_trials_are_neither_repeated_nor_ignored():
    def ask_three(n_pending):
        study = new_study(BayesianSampler(SPACE, 0))
        for params in random_params(14):
            study.add_trial(finished(SPACE, params, values=[score(params), 1.0]))
        for _ in range(n_pending):
            SPACE.suggest(study.ask())
        return points(study)[14:]

    pending = ask_three(4)
    assert len(set(pending)) == 4


def test_a_stopped_trial_counts_as_its_forecast():
    def scores(sign, **attributes):
        study = new_study(None, directions=("maximize" if sign > 0 else "minimize", "minimize"))
        first, second, third = random_params(3)
        study.add_trial(finished(SPACE, first, values=[0.2 * sign, 1.0]))
        study.add_trial(finished(SPACE, second, values=[0.9 * sign, 1.0]))
        stopped = finished(SPACE, third, state=TrialState.PRUNED)
        stopped.user_attrs = attributes
        study.add_trial(stopped)
        history = read_history(study, SPACE, lambda x: tuple(x.round(6)))
        return history.scores

    assert scores(1, forecast=0.6) == [0.2, 0.9, 0.6]
    assert scores(-1, forecast=-0.6) == [0.2, 0.9, 0.6]
    assert scores(1) == [0.2, 0.9, 0.2]
