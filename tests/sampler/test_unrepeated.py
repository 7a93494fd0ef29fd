"""What both of our samplers must live with: bad trials, small spaces, other workers, minimising."""

import multiprocessing
import random
import subprocess
import sys
import warnings

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState, create_trial

from peft_autoconfig.errors import ConfigError, SearchError
from peft_autoconfig.sampler import BayesianSampler, ParetoMutationSampler, unrepeated
from peft_autoconfig.space import SearchSpace

from .cases import (
    SPACE,
    THREE_POINTS,
    finished,
    new_study,
    objective,
    points,
    random_params,
    score,
    search,
)


@pytest.fixture(params=[BayesianSampler, ParetoMutationSampler], ids=["bayesian", "mutation"])
def kind(request):
    return request.param


def test_proposals_are_deterministic_and_never_repeat(kind):
    first, again = (search(9, kind=kind, n_startup=4) for _ in range(2))
    assert points(first) == points(again)
    assert len(set(points(first))) == 9
    assert points(search(3, seed=1, kind=kind)) != points(first)[:3]


def test_scores_to_be_minimised_are(kind):
    study = new_study(kind(SPACE, 0, n_startup=4), directions=("minimize", "minimize"))
    study.optimize(lambda t: (-objective(t)[0], 1.0), n_trials=9)
    assert points(study) == points(search(9, kind=kind, n_startup=4))


def test_no_global_state_is_touched(kind):
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )
    search(6, kind=kind, n_startup=3)
    after = (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )
    assert after == before


def test_proposals_do_not_depend_on_global_state(kind):
    torch.manual_seed(1)
    first = search(6, kind=kind, n_startup=3)
    torch.manual_seed(2)
    np.random.seed(2)
    torch.set_default_dtype(torch.float16)
    try:
        assert points(search(6, kind=kind, n_startup=3)) == points(first)
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_library_that_compiles_on_first_use_is_loaded():
    # BoTorch's compiled acquisition functions hang for ever on a lock that a killed process left
    code = "import sys, peft_autoconfig.sampler; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"botorch", "gpytorch", "jax"} & set(done.stdout.split())


def test_ties_among_scores_and_points_are_lived_with(kind):
    study = new_study(kind(SPACE, 0, n_startup=2))
    params = random_params(1)[0]
    for _ in range(3):  # one configuration with three seeds, two of them alike
        study.add_trial(finished(SPACE, params, values=[0.5, 1.0]))
    study.optimize(lambda t: (round(objective(t)[0], 1), 1.0), n_trials=6)
    assert len(set(points(study))) == 7


def test_scores_that_differ_in_the_last_digit_or_wildly_are_lived_with(kind):
    for values in ([0.5, 0.5 + 1e-16, 0.5 - 1e-16], [1e300, -1e300, 0.0], [1e-300, 0.0, 0.5]):
        study = new_study(kind(SPACE, 0, n_startup=1))
        for params, value in zip(random_params(3), values, strict=True):
            study.add_trial(finished(SPACE, params, values=[value, 1.0]))
        study.optimize(objective, n_trials=2)
        assert len(set(points(study))) == 5


def test_only_pruned_trials_lead_to_more_of_the_startup(kind):
    study = new_study(kind(SPACE, 0, n_startup=2))
    for params in random_params(5):
        study.add_trial(finished(SPACE, params, state=TrialState.PRUNED))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 7


def test_the_last_points_of_a_space_are_found_when_draws_miss_them(kind, monkeypatch):
    monkeypatch.setattr(unrepeated, "MAX_ENUMERATED", 0)
    monkeypatch.setattr(unrepeated, "NUM_CANDIDATES", 1)
    space = SearchSpace(
        num_layers=4,
        hidden_size=8,
        serial_bottleneck_sizes=(0, 4),
        parallel_bottleneck_sizes=(0, 2),
        prefix_lengths=(0,),
    )
    study = new_study(kind(space, 0, n_startup=2))
    study.optimize(lambda t: (0.5, space.num_params(space.suggest(t))), n_trials=60)
    assert len(study.trials) == len(set(points(study))) == space.num_points == 45


@pytest.mark.parametrize("n_startup", [1, 12])
def test_a_space_of_three_points_is_exhausted_and_the_study_stops(kind, n_startup):
    study = new_study(kind(THREE_POINTS, 0, n_startup=n_startup))
    study.optimize(lambda t: (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(t))), n_trials=10)
    assert len(study.trials) == len(set(points(study))) == 3


def test_an_exhausted_space_is_a_clear_error_outside_optimize(kind):
    study = new_study(kind(THREE_POINTS, 0))
    for _ in range(3):
        trial = study.ask()
        study.tell(trial, (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(trial))))
    with pytest.raises(SearchError, match="all 3 points of the space are evaluated"):
        THREE_POINTS.suggest(study.ask())


def test_a_worker_that_finds_nothing_left_stops_quietly(kind):
    study = new_study(kind(THREE_POINTS, 0))
    for _ in range(3):  # other workers, still busy
        THREE_POINTS.suggest(study.ask())
    study.optimize(lambda t: (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(t))), n_trials=5)
    assert [t.state for t in study.trials] == [TrialState.RUNNING] * 3 + [TrialState.PRUNED]


@pytest.mark.parametrize("space", [SPACE, THREE_POINTS])
def test_all_equal_scores(kind, space):
    study = new_study(kind(space, 0, n_startup=3))
    study.optimize(lambda t: (0.5, space.num_params(space.suggest(t))), n_trials=6)
    assert len(set(points(study))) == min(6, space.num_points)


def test_failed_pruned_and_endless_trials_are_lived_with(kind):
    study = new_study(kind(SPACE, 0, n_startup=4))

    def awkward(trial):
        config = SPACE.suggest(trial)
        match trial.number % 5:
            case 1:
                raise optuna.TrialPruned("hopeless")
            case 2:
                return float("nan"), 1
            case 3:
                return float("inf"), 1
            case 4:
                raise MemoryError
        return score(trial.params), SPACE.num_params(config)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(awkward, n_trials=12, catch=(MemoryError,))
    assert len(set(points(study))) == 12


def test_one_finished_trial_is_enough_for_the_model(kind):
    study = new_study(kind(SPACE, 0, n_startup=1))
    params = random_params(1)[0]
    study.add_trial(finished(SPACE, params, values=[score(params), 1.0]))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 3


def test_only_failures_lead_to_more_of_the_startup(kind):
    study = new_study(kind(SPACE, 0, n_startup=2))
    for params in random_params(5):
        study.add_trial(finished(SPACE, params, state=TrialState.FAIL))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 7


def test_trials_of_another_space_and_of_single_parameters_are_passed_over(kind):
    study = new_study(kind(SPACE, 0, n_startup=2))
    for number in range(4):
        study.add_trial(
            create_trial(
                params={"x": number},
                distributions={"x": optuna.distributions.IntDistribution(0, 9)},
                values=[1.0, 1.0],
            )
        )
    study.optimize(objective, n_trials=3)
    assert len(set(points(study)[4:])) == 3


def test_enqueued_trials_are_evaluated_as_they_are_and_seen(kind):
    study = new_study(kind(SPACE, 0, n_startup=2))
    queued = random_params(3)
    for params in queued:
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=5)
    assert [trial.params for trial in study.trials[:3]] == queued
    assert len(set(points(study))) == 5


def test_own_parameters_of_the_objective_are_drawn_beside(kind):
    def with_dropout(trial):
        config = SPACE.suggest(trial)
        dropout = trial.suggest_float("dropout", 0, 0.5)
        return score(trial.params) - dropout, SPACE.num_params(config)

    runs = []
    for _ in range(2):
        study = new_study(kind(SPACE, 0, n_startup=2))
        study.optimize(with_dropout, n_trials=4)
        runs.append(points(study))
    assert runs[0] == runs[1]
    assert len({run[-1] for run in runs[0]}) == 4


@pytest.mark.parametrize(
    "directions", [("maximize",), ("maximize", "maximize"), ("maximize", "minimize", "minimize")]
)
def test_studies_of_other_directions_are_refused(kind, directions):
    study = new_study(kind(SPACE, 0), directions=directions)
    with pytest.raises(SearchError, match=r'directions=\["maximize", "minimize"\]'):
        SPACE.suggest(study.ask())


@pytest.mark.parametrize("options", [{"seed": -1}, {"n_startup": 0}])
def test_impossible_options_are_refused(kind, options):
    with pytest.raises(ConfigError):
        kind(SPACE, **options)


def test_no_seed_draws_one(kind):
    # two may begin alike, since a design has few first points to choose from
    samplers = [kind(SPACE) for _ in range(10)]
    assert len({tuple(points_of_first_trial(sampler)) for sampler in samplers}) > 1
    assert points_of_first_trial(samplers[0]) == points_of_first_trial(samplers[0])


def points_of_first_trial(sampler):
    study = new_study(sampler)
    SPACE.suggest(study.ask())
    return points(study)


def work(storage, n_trials):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="s", storage=storage, sampler=BayesianSampler(SPACE, 0, n_startup=4)
    )
    study.optimize(objective, n_trials=n_trials)


@pytest.mark.slow
def test_processes_share_a_study_without_repeats(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    new_study(None, storage=storage, study_name="s")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(storage, 4)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 8
    assert len(set(points(study))) == 8


def test_choices_made_at_the_same_moment_are_told_apart(kind, monkeypatch):
    study = new_study(kind(SPACE, 0))
    first, second = study.ask(), study.ask()
    read, rivals = kind._read, [first]

    def read_and_let_the_other_choose(self, study, asking):
        history = read(self, study, asking)
        if rivals and asking == second.number:
            SPACE.suggest(rivals.pop())  # between this reading and this sampler's announcement
        return history

    monkeypatch.setattr(kind, "_read", read_and_let_the_other_choose)
    SPACE.suggest(second)
    assert not rivals
    assert len(set(points(study))) == 2
