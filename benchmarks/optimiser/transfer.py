"""What a search gains from an earlier one of a related task, and loses by one of an unrelated task.

    OMP_NUM_THREADS=1 python benchmarks/optimiser/transfer.py [--instances 4] [--tables]

The target is an instance of `problem.py`. The earlier search is one by our sampler, 60 evaluations
with noise, on a *related* task (the same instance with the worth of its layers, sizes and span
drawn anew around what they were) or on an *unrelated* one (another instance of the family). With
`--tables` the tasks are the real trainings of `../table`, interpolated, with the noise of seeds.
Every search is stored in results/transfer.jsonl as soon as it is done and not run again; the table
is printed at the end.
"""

import argparse
import copy
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import torch
from methods import Search
from problem import FAMILIES, Problem

from peft_autoconfig.sampler import EarlierRun, TransferSampler

sys.path.append(str(Path(__file__).parents[1] / "table"))
from optimisers import TableProblem, TableSearch
from table import Table

RESULTS = Path(__file__).parents[1] / "table" / "results"
FILE = Path(__file__).parent / "results" / "transfer.jsonl"
LAYERS, EVALUATIONS, MARKS = 12, 60, (15, 20, 30, 40, 60)
KEY = ("target", "instance", "earlier")
TABLES = ("trec", "questions")


def related(problem: Problem, seed: int) -> Problem:
    """Returns the problem with its constants drawn anew around what they were.

    Each layer's worth changes by a factor of log-normal spread 0.5, which leaves a rank correlation
    between the worths of layers of about .9; a span is drawn anew, so scores are on another scale.
    """
    other, draw = copy.deepcopy(problem), np.random.default_rng([seed, 77])

    def around(worth: np.ndarray) -> np.ndarray:
        worth = worth * np.exp(0.5 * draw.standard_normal(worth.shape))
        return worth / worth.sum(axis=-1, keepdims=True)

    ties = problem.pairs / np.minimum(problem.weights[1:], problem.weights[:-1])
    other.weights = around(problem.weights)
    other.pairs = ties * np.minimum(other.weights[1:], other.weights[:-1])
    other.alpha = float(np.clip(problem.alpha + 0.1 * draw.standard_normal(), 0.3, 0.9))
    gains = problem.best_gain * np.exp(0.2 * draw.standard_normal(3))
    other.best_gain = np.clip(gains, 0.1, 0.9)
    other.half_size = problem.half_size * np.exp(0.4 * draw.standard_normal(3))
    other.span = draw.uniform(0.25, 0.4)
    other.best_rate = problem.best_rate + 0.1 * draw.standard_normal()
    if problem.family == "by_part":
        other.by_part = around(problem.by_part)
        other.saturation = draw.uniform(1.5, 4.0)
    if problem.family == "synergy":
        other.need = float(np.clip(problem.need + 0.03 * draw.standard_normal(), 0.08, 0.37))
        other.overfit = draw.uniform(0.02, 0.08)
    return other


def run(problem, instance: int, sampler=None) -> Search:
    """Returns a search after all its evaluations, by `sampler` or by ours."""
    kind = Search if isinstance(problem, Problem) else TableSearch
    search = kind(problem, "ours", instance)
    if sampler is not None:
        search.study.sampler = sampler
    for _ in range(EVALUATIONS):
        search.advance(1)
    return search


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, object, dict[str, object]]]:
    """Yields target's name, instance, target, and the tasks of earlier runs by name."""
    if options.tables:
        tables = {task: TableProblem(Table.load(RESULTS, task), "gp") for task in TABLES}
        for instance in range(options.instances):
            for task, other in (TABLES, TABLES[::-1]):
                yield task, instance, tables[task], {other: tables[other]}
        return
    for instance in range(options.instances):
        for family in FAMILIES:
            target = Problem(LAYERS, instance, family)
            earlier = {
                "related": related(target, instance),
                "unrelated": Problem(LAYERS, 100 + instance, family),
            }
            yield family, instance, target, earlier


def records() -> list[dict]:
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def store(key: tuple, search: Search) -> None:
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.write(json.dumps(dict(zip(KEY, key, strict=True)) | {"curve": search.curve()}) + "\n")
    print(*key, search.curve()[-1], flush=True)


def missing(options: argparse.Namespace) -> None:
    """Runs what is not stored yet."""
    done = {tuple(record[name] for name in KEY) for record in records()}
    for target, instance, problem, earlier in cases(options):
        if (cold := (target, instance, "none")) not in done:
            store(cold, run(problem, instance))
        for name, task in earlier.items():
            if (warm := (target, instance, name)) not in done:
                found = EarlierRun.of_study(run(task, 1000 + instance).study, problem.space)
                sampler = TransferSampler(problem.space, [found], instance)
                store(warm, run(problem, instance, sampler))


def table(is_shown) -> str:
    """Returns the shares of the hypervolume and the paired differences from a cold start."""
    curves = defaultdict(dict)
    for record in records():
        if is_shown(record["target"]):
            case = (record["target"], record["instance"])
            curves[record["earlier"]][case] = record["curve"]
    lines = [f"| earlier run | {' | '.join(map(str, MARKS))} | searches |"]
    lines.append("|---|" + "---|" * (len(MARKS) + 1))
    for earlier, found in curves.items():
        cells = []
        for mark in MARKS:
            at = {case: curve[mark // 5 - 1] for case, curve in found.items()}
            gains = [y - curves["none"][case][mark // 5 - 1] for case, y in at.items()]
            error = np.std(gains, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            gain = "" if earlier == "none" else f" ({np.mean(gains):+.3f} ± {error:.3f})"
            cells.append(f"{np.mean([*at.values()]):.3f}{gain}")
        lines.append(f"| {earlier} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--tables", action="store_true", help="the real trainings of ../table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    missing(options)
    print("share of the hypervolume (difference from ours without an earlier run ± its error)")
    print(table(lambda target: (target in TABLES) == options.tables))


if __name__ == "__main__":
    main()
