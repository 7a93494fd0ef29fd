"""Searches with and without stopping, on trainings that models of the table make up.

    python benchmarks/fidelity/closed_loop.py [--task trec] [--seeds 6] [--trials 40]

In a replay (`fidelity.py`) trials come at random; a search that learns proposes better ones, stops
fewer, and learns from those that it stopped. So here the real `Search` with its sampler runs. What
a training shows at a quarter, at half and at the end is a Gaussian process's mean over the
trainings of the table, with noise that is the same along one training. Writes
`results/closed_loop.json`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "table"), str(HERE)]
from fidelity import EVALUATION, TABLE  # noqa: E402
from table import Table  # noqa: E402

from peft_autoconfig import Outcome, Search  # noqa: E402
from peft_autoconfig.bayes.surrogate import fit_surrogate  # noqa: E402

RUNGS = (0.25, 0.5)
NOISE = 0.015  # of trainings that are repeated on trec and learn, one to two points


class Curves:
    """What trainings of any configuration show, as models of a table have it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        curves = np.array([run.curve for run in table.finished])
        X = self._inputs([(run.config, run.learning_rate) for run in table.finished])
        targets = [*curves[:, :2, 1].T, *curves[:, :2, 2].T, curves[:, -1, 1]]
        self.models = [fit_surrogate(X, torch.as_tensor(y.copy())) for y in targets]

    def _inputs(self, points: list) -> torch.Tensor:
        return torch.as_tensor(self.table._inputs(points))

    def of(self, config, rate: float) -> list[float]:
        """Returns scores at the rungs, losses at the rungs, and the final score."""
        x = self._inputs([(config, rate)])
        return [float(model.posterior(x)[0][0]) for model in self.models]


def search(curves: Curves, seed: int, num_trials: int, *, stops: bool) -> dict[str, float]:
    """Returns what one search costs, in whole trainings, and the true area below its front."""
    spent = 0.0
    generator = np.random.default_rng(seed)

    def train(config, learning_rate, report):
        nonlocal spent
        *shown, final = curves.of(config, learning_rate)
        luck = NOISE * generator.standard_normal()
        done = 0.0
        for fraction, score, loss in zip(RUNGS, shown[:2], shown[2:], strict=True):
            if stops:
                spent += fraction - done + EVALUATION
                done = fraction
                report(fraction, float(np.clip(score + luck, 0, 1)), loss)
        spent += 1 - done
        return Outcome(final + luck)

    space = curves.table.space
    with tempfile.TemporaryDirectory() as folder:
        run = Search(space, Path(folder) / "run", seed=seed)
        run.run(train, num_trials)
        low, high = np.log10(space.params_range)
        front = run.front()
        edges = [(np.log10(m.num_params) - low) / (high - low) for m in front] + [1.0]
        true = [curves.of(m.config, m.learning_rate)[-1] for m in front]
        return {
            "cost": round(spent / num_trials, 3),
            "area": round(float(np.diff(edges) @ np.array(true)), 4),
            "stopped": sum(trial.is_stopped for trial in run.trials) / num_trials,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="trec")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curves = Curves(Table.load(TABLE / "results", arguments.task))
    found = []
    for seed in range(arguments.seeds):
        whole = search(curves, seed, arguments.trials, stops=False)
        stopped = search(curves, seed, arguments.trials, stops=True)
        found.append({"seed": seed, "whole": whole, "stopped early": stopped})
        print(found[-1], flush=True)
        text = json.dumps({"task": arguments.task, "searches": found}, indent=1)
        (HERE / "results" / "closed_loop.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
