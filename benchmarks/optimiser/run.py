"""Compares samplers on synthetic searches with a known front; writes results/summary.json.

    OMP_NUM_THREADS=1 python benchmarks/optimiser/run.py [--instances 4] [--samplers ours tpe ...]

Every sampler starts from the same design and is given the same noise; a point that it draws outside
the space is pruned and costs it nothing. The figure is the hypervolume of the true scores of all
that was evaluated, divided by that of the exact front.
"""

import argparse
import json
import platform
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import TrialState
from problem import Problem

from peft_autoconfig.sampler import NUM_STARTUP, BayesianSampler, startup_design

MARKS = (20, 40, 60)
HERE = Path(__file__).parent


class StratifiedSampler(optuna.samplers.RandomSampler):
    """Random search from cheap to dear: `SearchSpace.sample_stratified`."""

    def __init__(self, space, seed):
        super().__init__(seed)
        self._space, self._generator = space, np.random.default_rng([seed, 1])

    def infer_relative_search_space(self, study, trial):
        return self._space.distributions

    def sample_relative(self, study, trial, search_space):
        return self._space.decode_params(self._space.sample_stratified(1, self._generator)[0])


SAMPLERS = {
    "ours": lambda space, seed: BayesianSampler(space, seed),
    "random": StratifiedSampler,
    "tpe": lambda space, seed: optuna.samplers.TPESampler(
        n_startup_trials=NUM_STARTUP, multivariate=True, seed=seed
    ),
    "nsga3": lambda space, seed: optuna.samplers.NSGAIIISampler(population_size=20, seed=seed),
    "gp": lambda space, seed: optuna.samplers.GPSampler(n_startup_trials=NUM_STARTUP, seed=seed),
}


def search(problem: Problem, name: str, seed: int, marks=MARKS) -> tuple[list[float], float]:
    """Returns the share of the exact hypervolume at each mark, and seconds per proposal."""
    space, noise = problem.space, np.random.default_rng([seed, 2])
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=SAMPLERS[name](space, seed)
    )
    if name not in ("ours", "random"):
        for x in startup_design(space, NUM_STARTUP, seed):
            study.enqueue_trial(space.decode_params(x))
    scores, costs, seconds = [], [], 0.0

    def evaluate(trial):
        nonlocal seconds
        started = time.process_time()
        config = space.suggest(trial)
        rate = trial.params["learning_rate"] if space.learning_rates else None
        seconds += time.process_time() - started
        scores.append(problem.score(config, rate))
        costs.append(space.num_params(config))
        return scores[-1] + problem.noise * noise.standard_normal(), np.log10(costs[-1])

    while len(scores) < max(marks):
        study.optimize(evaluate, n_trials=1)
    best = problem.hypervolume(*problem.front())
    pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
    print(f"  {name}: {pruned} pruned", flush=True) if pruned else None
    shares = [problem.hypervolume(np.array(scores[:n]), np.array(costs[:n])) / best for n in marks]
    return shares, seconds / max(marks)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--samplers", nargs="+", default=["ours", "random", "tpe", "nsga3"])
    parser.add_argument("--output", default=str(HERE / "results" / "summary.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    summary = {
        "date": str(date.today()),
        "machine": f"{platform.machine()}, one core, torch {torch.__version__}",
        "marks": MARKS,
        "results": [],
    }
    for num_layers in options.layers:
        for name in options.samplers:
            runs = [
                search(Problem(num_layers, seed), name, seed) for seed in range(options.instances)
            ]
            shares = np.array([shares for shares, _ in runs])
            error = shares.std(axis=0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else None
            row = {
                "layers": num_layers,
                "sampler": name,
                "mean": shares.mean(axis=0).round(3).tolist(),
                "standard_error": None if error is None else error.round(3).tolist(),
                "per_instance": shares.round(3).tolist(),
                "seconds_per_proposal": round(float(np.mean([s for _, s in runs])), 3),
            }
            summary["results"].append(row)
            print(num_layers, name, row["mean"], row["seconds_per_proposal"], flush=True)
            Path(options.output).write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
