"""A small space with a score, and studies over it."""

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from peft_autoconfig.sampler import BayesianSampler
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


def search(n_trials, seed=0, *, kind=BayesianSampler, **options):
    study = new_study(kind(SPACE, seed, **options))
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
