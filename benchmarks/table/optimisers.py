"""Samplers on the tables of real trainings: which finds more in as many trainings?

    python benchmarks/table/optimisers.py --tasks trec questions

The score of any configuration is interpolated from the table by a model, a Gaussian process or a
forest of trees: the first is of the kind that our sampler has and may favour it, the second is of
no sampler's kind. To each score the error of a real repetition is added, drawn from those of the
table, which has some trainings that failed by chance. Writes results/optimisers.json and .svg.
"""

import argparse
import json
import sys
from collections import defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
import torch
from scipy.stats import wilcoxon
from sklearn.ensemble import ExtraTreesRegressor
from table import DEFAULT_BATCH_SIZE, Run, Table

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "optimiser"))
from methods import EVERY, Search  # noqa: E402
from problem import staircase  # noqa: E402

NUM_DRAWN = 20_000  # points by which the best front is known
TRUTHS = ("gp", "forest")


class TableProblem:
    """What a table says of a task, as a problem that samplers can be compared on.

    Args:
        table: Real trainings.
        truth: What interpolates them, one of `TRUTHS`.
    """

    def __init__(self, table: Table, truth: str) -> None:
        self.space, self.noise = table.space, table.noise
        self._table = table
        self._runs = table.finished
        self._chance = min(run.score for run in self._runs)
        X = table.inputs(np.stack([self._encode(run) for run in self._runs]))
        Y = np.array([run.score for run in self._runs])
        if truth == "forest":
            forest = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0).fit(X, Y)
            self._model = forest.predict
        else:
            surrogate = table.surrogate
            self._model = lambda X: surrogate.posterior(torch.as_tensor(X))[0].numpy()
        self.errors = repetition_errors(table)

    def score(self, config, rate: float) -> float:
        """Returns the score without noise."""
        return float(self._scores(self.space.encode(config, rate)[None])[0])

    def front(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best front that is known: scores and parameters, ascending."""
        return self._front

    @cached_property
    def _front(self) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.space.sample_stratified(NUM_DRAWN, np.random.default_rng(0))
        points = np.concatenate([drawn, np.stack([self._encode(run) for run in self._runs])])
        return staircase(self._scores(points), self.space.count_params(points))

    def hypervolume(self, scores: np.ndarray, costs: np.ndarray) -> float:
        """Returns the area between a front and (worst score, dearest configuration)."""
        scores, costs = staircase(np.asarray(scores), np.asarray(costs))
        edges = np.append(np.log10(costs), np.log10(self.space.params_range[1]))
        return float((np.diff(edges) * np.maximum(scores - self._chance, 0)).sum())

    def _encode(self, run: Run) -> np.ndarray:
        return self.space.encode(run.config, run.learning_rate)

    def _scores(self, points: np.ndarray) -> np.ndarray:
        return np.clip(self._model(self._table.inputs(points)), 0, 1)


def repetition_errors(table: Table) -> np.ndarray:
    """Returns the deviations of repeated trainings from their means, of their full size."""
    groups = [np.array(scores) for scores in table.repeated]
    if not groups:
        sys.exit("expected a table with repeated trainings, which tell the noise; collect more")
    return np.concatenate([(g - g.mean()) * np.sqrt(len(g) / (len(g) - 1)) for g in groups])


class TableSearch(Search):
    """One search on a table."""

    def _error(self) -> float:
        return float(self._noise.choice(self.problem.errors))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", nargs="+", default=["trec", "questions"])
    add("--batch-size", type=int, default=DEFAULT_BATCH_SIZE, help="of the trainings")
    add("--methods", nargs="+", default=["ours", "random", "tpe", "nsga3", "mutation"])
    add("--instances", type=int, default=10)
    add("--budget", type=int, default=40)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = HERE / "results" / "optimisers.json"
    stored = json.loads(file.read_text()) if file.exists() else []
    done = {(r["task"], r["truth"], r["method"], r["instance"]) for r in stored}
    for task in options.tasks:
        table = Table.load(HERE / "results", task, batch_size=options.batch_size)
        for truth in TRUTHS:
            problem = TableProblem(table, truth)
            for instance in range(options.instances):
                for method in options.methods:
                    if (task, truth, method, instance) in done:
                        continue
                    search = TableSearch(problem, method, instance)
                    for _ in range(options.budget):
                        search.advance(1)
                    record = {"task": task, "truth": truth, "method": method}
                    record |= {"instance": instance, "curve": search.curve(), "every": EVERY}
                    stored.append(record)
                    file.write_text(json.dumps(stored) + "\n")
    print("\n".join(lines(stored)))
    plot(stored)


def lines(records: list[dict]) -> list[str]:
    """Returns a table: the mean share of the best known front's area, and how ours compares."""
    marks = (20, 40)
    head = " | ".join(f"after {mark}" for mark in marks)
    found = [f"| truth | method | {head} | searches | ours ahead after {marks[-1]} |"]
    found += ["|---|---|" + "--:|" * len(marks) + "--:|---|"]
    for truth in TRUTHS:
        for method in dict.fromkeys(r["method"] for r in records):
            chosen = {
                key(r): r["curve"] for r in records if (r["truth"], r["method"]) == (truth, method)
            }
            ours = {
                key(r): r["curve"] for r in records if (r["truth"], r["method"]) == (truth, "ours")
            }
            means = [np.mean([c[mark // EVERY - 1] for c in chosen.values()]) for mark in marks]
            gains = [ours[k][-1] - chosen[k][-1] for k in chosen.keys() & ours.keys()]
            ahead = ""
            if method != "ours" and len(gains) > 5 and any(gains):
                ahead = f"{np.mean(gains):.3f}, p = {wilcoxon(gains).pvalue:.2g}"
            cells = " | ".join(f"{value:.3f}" for value in means)
            found.append(f"| {truth} | {method} | {cells} | {len(chosen)} | {ahead} |")
    return found


def key(record: dict) -> tuple[str, int]:
    return record["task"], record["instance"]


def plot(records: list[dict]) -> None:
    """Draws the mean curve of each method, for each task and truth."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "tables"  # the same file each time
    tasks = list(dict.fromkeys(r["task"] for r in records))
    size = (3.6 * len(tasks), 3.2 * len(TRUTHS))
    figure, axes = pyplot.subplots(len(TRUTHS), len(tasks), figsize=size, squeeze=False)
    for row, truth in zip(axes, TRUTHS, strict=True):
        for axis, task in zip(row, tasks, strict=True):
            curves = defaultdict(list)
            for r in records:
                if (r["task"], r["truth"]) == (task, truth):
                    curves[r["method"]].append(r["curve"])
            for method, found in curves.items():
                mean = np.mean(found, axis=0)
                axis.plot(EVERY * np.arange(1, len(mean) + 1), mean, label=method)
            axis.set(title=f"{task}, {truth}", xlabel="trainings")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    axes[0][0].set_ylabel("share of the best known area")
    figure.savefig(
        HERE / "results" / "optimisers.svg", bbox_inches="tight", metadata={"Date": None}
    )
    pyplot.close(figure)


if __name__ == "__main__":
    main()
