"""The sampler in Optuna studies: it searches well, repeats and forgets nothing, refuses clearly."""

import multiprocessing
import warnings

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from peft_autoconfig.errors import ConfigError, SearchError
from peft_autoconfig.sampler import BayesianSampler, startup_design
from peft_autoconfig.space import SearchSpace

RATES = (1e-4, 1e-3, 1e-2)
SPACE = SearchSpace(
    num_layers=6,
    hidden_size=64,
    serial_bottleneck_sizes=(0, 1, 4, 16, 64),
    parallel_bottleneck_sizes=(0, 1, 4, 16, 64),
    prefix_lengths=(0, 1, 4, 16),
    learning_rates=RATES,
)
THREE_POINTS = SearchSpace(
    num_layers=2,
    hidden_size=8,
    serial_bottleneck_sizes=(4,),
    parallel_bottleneck_sizes=(0,),
    prefix_lengths=(0,),
)
WORTH = np.array([0.0, 0.05, 0.4, 0.05, 0.1, 0.4])


def score(params):
    """A score in [0, 1] that rises with sizes and useful layers and peaks at the middle rate."""
    layers = sum(w * params[f"layer_{i}"] for i, w in enumerate(WORTH))
    serial = 0.8 * (params["serial_bottleneck_size"] / 64) ** 0.3
    prefix = 0.3 * (params["prefix_length"] / 16) ** 0.5
    fit = 1 - 0.3 * abs(np.log10(params["learning_rate"] / 1e-3))
    return layers**0.5 * (1 - (1 - serial) * (1 - prefix)) * fit


def objective(trial):
    config = SPACE.suggest(trial)
    return score(trial.params), SPACE.num_params(config)


def new_study(sampler, directions=("maximize", "minimize"), **options):
    return optuna.create_study(directions=directions, sampler=sampler, **options)


def search(n_trials, seed=0, **options):
    study = new_study(BayesianSampler(SPACE, seed, **options))
    study.optimize(objective, n_trials=n_trials)
    return study


def points(study):
    return [tuple(trial.params.values()) for trial in study.trials]


def finished(space, params, values=None, state=TrialState.COMPLETE):
    return create_trial(
        state=state, params=params, distributions=space.distributions, values=values
    )


def random_params(n, seed=0):
    return [SPACE.decode_params(x) for x in SPACE.sample_stratified(n, seed)]


def hypervolume(trials):
    """Area in log10 parameters between the front and (score 0, the largest configuration)."""
    largest = np.log10(SPACE.params_range[1])
    area, best, edge = 0.0, 0.0, None
    for cost, value in sorted((np.log10(t.values[1]), t.values[0]) for t in trials):
        if value > best:
            area += 0 if edge is None else best * (cost - edge)
            best, edge = value, cost
    return area + best * (largest - edge)


@pytest.fixture(scope="module")
def searched():
    return search(30)


def test_beats_stratified_random_search(searched):
    ours = hypervolume(searched.trials)
    randoms = []
    for seed in range(10):
        study = new_study(None)
        for params in random_params(30, seed):
            study.enqueue_trial(params)
        study.optimize(objective, n_trials=30)
        randoms.append(hypervolume(study.trials))
    assert ours > max(randoms)


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


def test_startup_covers_cheap_and_dear_every_rate_and_published_configurations():
    design = np.array(startup_design(SPACE, 12, 0))
    counts = SPACE.count_params(design)
    assert counts.min() < 1000
    assert counts.max() > 20_000
    rates = [SPACE.decode(x)[1] for x in design]
    assert {rates.count(rate) for rate in RATES} == {4}
    shapes = [
        (c.serial_bottleneck_size, c.parallel_bottleneck_size, c.prefix_length)
        for c in (SPACE.decode(x)[0] for x in design)
        if c.layers_to_transform is None
    ]
    assert {(4, 0, 0), (0, 16, 0), (0, 0, 16)} <= set(shapes)


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

    study.optimize(rises_with_the_rank, n_trials=8)
    assert len(set(points(study))) == 8
    assert max(trial.params["lora_rank"] for trial in study.trials[3:]) == 8


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_startup_of_any_length_in_any_space(n):
    for space in (SPACE, THREE_POINTS, SearchSpace.paper(12, 768, max_params=5000)):
        design = startup_design(space, n, 0)
        assert len(design) == n
        assert all(space.is_valid(space.decode(x)[0]) for x in design)


@pytest.mark.parametrize("n_startup", [1, 12])
def test_a_space_of_three_points_is_exhausted_and_the_study_stops(n_startup):
    study = new_study(BayesianSampler(THREE_POINTS, 0, n_startup=n_startup))
    study.optimize(lambda t: (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(t))), n_trials=10)
    assert len(study.trials) == len(set(points(study))) == 3


def test_an_exhausted_space_is_a_clear_error_outside_optimize():
    study = new_study(BayesianSampler(THREE_POINTS, 0))
    for _ in range(3):
        trial = study.ask()
        study.tell(trial, (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(trial))))
    with pytest.raises(SearchError, match="all 3 points of the space are evaluated"):
        THREE_POINTS.suggest(study.ask())


def test_a_worker_that_finds_nothing_left_stops_quietly():
    study = new_study(BayesianSampler(THREE_POINTS, 0))
    for _ in range(3):  # other workers, still busy
        THREE_POINTS.suggest(study.ask())
    study.optimize(lambda t: (0.5, THREE_POINTS.num_params(THREE_POINTS.suggest(t))), n_trials=5)
    assert [t.state for t in study.trials] == [TrialState.RUNNING] * 3 + [TrialState.PRUNED]


@pytest.mark.parametrize("space", [SPACE, THREE_POINTS])
def test_all_equal_scores(space):
    study = new_study(BayesianSampler(space, 0, n_startup=3))
    study.optimize(lambda t: (0.5, space.num_params(space.suggest(t))), n_trials=6)
    assert len(set(points(study))) == min(6, space.num_points)


def test_failed_pruned_and_endless_trials_are_lived_with():
    study = new_study(BayesianSampler(SPACE, 0, n_startup=4))

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


def test_one_finished_trial_is_enough_for_the_model():
    study = new_study(BayesianSampler(SPACE, 0, n_startup=1))
    params = random_params(1)[0]
    study.add_trial(finished(SPACE, params, values=[score(params), 1.0]))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 3


def test_only_failures_lead_to_more_of_the_startup():
    study = new_study(BayesianSampler(SPACE, 0, n_startup=2))
    for params in random_params(5):
        study.add_trial(finished(SPACE, params, state=TrialState.FAIL))
    study.optimize(objective, n_trials=2)
    assert len(set(points(study))) == 7


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


def test_trials_of_another_space_and_of_single_parameters_are_passed_over():
    study = new_study(BayesianSampler(SPACE, 0, n_startup=2))
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


def test_enqueued_trials_are_evaluated_as_they_are_and_seen():
    study = new_study(BayesianSampler(SPACE, 0, n_startup=2))
    queued = random_params(3)
    for params in queued:
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=5)
    assert [trial.params for trial in study.trials[:3]] == queued
    assert len(set(points(study))) == 5


def test_own_parameters_of_the_objective_are_drawn_beside():
    def with_dropout(trial):
        config = SPACE.suggest(trial)
        dropout = trial.suggest_float("dropout", 0, 0.5)
        return score(trial.params) - dropout, SPACE.num_params(config)

    runs = []
    for _ in range(2):
        study = new_study(BayesianSampler(SPACE, 0, n_startup=2))
        study.optimize(with_dropout, n_trials=4)
        runs.append(points(study))
    assert runs[0] == runs[1]
    assert len({run[-1] for run in runs[0]}) == 4


def test_scores_to_be_minimised_lead_to_the_same_proposals(searched):
    study = new_study(BayesianSampler(SPACE, 0), directions=("minimize", "minimize"))
    study.optimize(lambda t: (-objective(t)[0], 1.0), n_trials=16)
    assert points(study) == points(searched)[:16]


@pytest.mark.parametrize(
    "directions", [("maximize",), ("maximize", "maximize"), ("maximize", "minimize", "minimize")]
)
def test_studies_of_other_directions_are_refused(directions):
    study = new_study(BayesianSampler(SPACE, 0), directions=directions)
    with pytest.raises(SearchError, match=r'directions=\["maximize", "minimize"\]'):
        SPACE.suggest(study.ask())


@pytest.mark.parametrize("options", [{"seed": -1}, {"n_startup": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        BayesianSampler(SPACE, **options)


def test_no_seed_draws_one():
    first, second = (BayesianSampler(SPACE) for _ in range(2))
    assert points_of_first_trial(first) != points_of_first_trial(second)
    assert points_of_first_trial(first) == points_of_first_trial(first)


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


def test_choices_made_at_the_same_moment_are_told_apart(monkeypatch):
    study = new_study(BayesianSampler(SPACE, 0))
    first, second = study.ask(), study.ask()
    read, rivals = BayesianSampler._read, [first]

    def read_and_let_the_other_choose(self, study, asking):
        history = read(self, study, asking)
        if rivals and asking == second.number:
            SPACE.suggest(rivals.pop())  # between this reading and this sampler's announcement
        return history

    monkeypatch.setattr(BayesianSampler, "_read", read_and_let_the_other_choose)
    SPACE.suggest(second)
    assert not rivals
    assert len(set(points(study))) == 2
