"""What a proposal costs, and how that grows with trials and dimensions.

    OMP_NUM_THREADS=1 python benchmarks/optimiser/growth.py [--methods ours tpe] [--proposals 5]

A study of each length holds points drawn from cheap to dear and their noisy scores (family
`by_part`, so that dimensions are layers and three sizes); then each method proposes some points in
turn. `results/growth.md` has the medians of CPU and wall seconds.
"""

import argparse
import platform
import time
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import torch
from methods import SAMPLERS
from optuna.trial import create_trial
from problem import Problem

FILE = Path(__file__).parent / "results" / "growth.md"
DIMENSIONS = (9, 27, 83)  # 6, 24 and 80 layers
TRIALS = (20, 60, 100, 200, 500)


def study_of(problem: Problem, trials: int, method: str) -> optuna.Study:
    """Returns a study that holds so many random points with their scores."""
    sampler = SAMPLERS[method](problem.space, 0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    draw = np.random.default_rng(0)
    for x in problem.space.sample_stratified(trials, draw):
        params = problem.space.decode_params(x)
        config = problem.space.config(params)
        score = problem.score(config, None) + problem.noise * draw.standard_normal()
        values = [score, float(np.log10(problem.space.num_params(config)))]
        distributions = problem.space.distributions
        study.add_trial(create_trial(params=params, distributions=distributions, values=values))
    return study


def seconds(study: optuna.Study, problem: Problem) -> tuple[float, float]:
    """Returns the CPU and wall seconds of one more proposal, which is left out afterwards."""
    cpu, wall = time.process_time(), time.perf_counter()
    trial = study.ask()
    try:
        problem.space.suggest(trial)
    except optuna.TrialPruned:  # a sampler that does not know the space
        pass
    spent = time.process_time() - cpu, time.perf_counter() - wall
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return spent


def measure(methods: list[str], proposals: int) -> list[str]:
    """Returns the rows of the table."""
    rows = []
    for dimensions in DIMENSIONS:
        problem = Problem(dimensions - 3, 0, "by_part")
        for trials in TRIALS:
            studies = {method: study_of(problem, trials, method) for method in methods}
            for method, study in studies.items():
                spent = [seconds(study, problem) for _ in range(proposals + 1)][1:]  # one to warm
                cpu, wall = (median(column) for column in zip(*spent, strict=True))
                rows.append(f"| {dimensions} | {trials} | {method} | {cpu:.3f} | {wall:.3f} |")
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", nargs="+", choices=[*SAMPLERS], default=["ours", "tpe"])
    parser.add_argument("--proposals", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = measure(options.methods, options.proposals)
    head = ["| dimensions | trials | method | CPU s | wall s |", "|--:|--:|---|--:|--:|"]
    where = (
        f"Medians of {options.proposals} proposals on one thread; {platform.machine()}, "
        f"torch {torch.__version__}, optuna {optuna.__version__}."
    )
    FILE.write_text("\n".join([where, "", *head, *rows]) + "\n")


if __name__ == "__main__":
    main()
