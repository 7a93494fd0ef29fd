"""What a front by posterior means is worth: claims against truth, and what is lost by choosing it.

    OMP_NUM_THREADS=1 python benchmarks/optimiser/believed.py [--noise 0.01 0.03] [--instances 3]

After 60 evaluations by our sampler the front is chosen by the noisy scores, and by what the model
believes (`believed_front`). Printed are the mean claim less the truth (a winner's curse, if above
0), the mean distance between them, and the hypervolume of the true scores of the members, relative
to that of everything evaluated: 1 means that no good point was left out.
"""

import argparse

import numpy as np
import optuna
import torch
from methods import Search
from problem import FAMILIES, Problem, staircase

from peft_autoconfig.sampler import believed_front

EVALUATIONS = 60


def measure(family: str, layers: int, instance: int, noise: float) -> dict[str, list[float]]:
    """Returns for both ways mean error, mean distance and share of the hypervolume."""
    problem = Problem(layers, instance, family, noise)
    search = Search(problem, "ours", instance)
    for _ in range(EVALUATIONS):
        search.advance(1)
    truth, costs = np.array(search.scores), np.array(search.costs, dtype=float)
    noisy = np.array([trial.values[0] for trial in search.study.trials])
    found = zip(*staircase(noisy, costs), strict=True)
    observed = {int(np.flatnonzero((noisy == y) & (costs == c))[0]): y for y, c in found}
    believed = {t.number: t.score for t in believed_front(search.study, problem.space)}
    everything = problem.hypervolume(truth, costs)

    def figures(claims: dict[int, float]) -> list[float]:
        members = [*claims]
        errors = np.array([*claims.values()]) - truth[members]
        share = problem.hypervolume(truth[members], costs[members]) / everything
        return [float(errors.mean()), float(np.abs(errors).mean()), share]

    return {"observed": figures(observed), "believed": figures(believed)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--instances", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for noise in options.noise:
        found = [
            measure(family, layers, instance, noise)
            for family in FAMILIES
            for layers in options.layers
            for instance in range(options.instances)
        ]
        for way in ("observed", "believed"):
            all_figures = np.array([figures[way] for figures in found])
            error, distance, share = all_figures.mean(axis=0)
            print(
                f"noise {noise}, front as {way}: claim less truth {error:+.4f}, distance "
                f"{distance:.4f}, share of the hypervolume {share:.4f} (n = {len(found)})",
                flush=True,
            )


if __name__ == "__main__":
    main()
