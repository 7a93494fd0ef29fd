"""What shorter trainings, each with a schedule of its own, tell of whole ones, and what they save.

    python benchmarks/fidelity/shorter.py --data-dir DATA --tasks trec questions

Trains what the random searches of `../headline` tried (`../table`, 96 steps of 16 examples), at the
rates that they had there, again for 12, 24 and 48 steps. Then a search is imagined that tries 30 of
them short, trains in full only the few that are best there within rising budgets of parameters, and
takes its front from these. `results/shorter.json` has for each length: Kendall's tau with the whole
trainings, in all and among the best 30 %, what such a search costs as a share of 30 whole
trainings, and how far its front falls short of theirs (the best score, averaged over the logarithm
of the parameters).
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from fidelity import TABLE, area
from scipy.stats import kendalltau

sys.path.append(str(TABLE))
from collect import add_source, train, training_of
from table import Run, Table, fidelity_folder

RESULTS = Path(__file__).resolve().parent / "results"
BATCH_SIZE, WHOLE = 16, 96
LENGTHS = (12, 24, 48)
FULL = (4, 8)  # trainings in full of what looks best
NUM_TRIALS, ORDERS = 30, 200  # of the trainings of a task, in random order


def whole_runs(task: str) -> list[Run]:
    """Returns the whole trainings of a random search, of the first seed."""
    file = fidelity_folder(TABLE / "results", BATCH_SIZE) / f"{task}-random.jsonl"
    return [run for run in Table.read_file(file, _space(task)) if run.curve and run.seed == 0]


def file_of(task: str, steps: int) -> Path:
    return RESULTS / "shorter" / f"{task}-{steps}.jsonl"


def collect(task: str, arguments: argparse.Namespace) -> None:
    """Trains what the task's files lack, one line a training, all lengths of one in turn."""
    trainings = {
        steps: training_of(task, arguments, steps=steps, batch_size=BATCH_SIZE) for steps in LENGTHS
    }
    for run in whole_runs(task):
        for steps, training in trainings.items():
            if _key(run) in {_key(short) for short in short_runs(task, steps)}:
                continue
            curve = train(training, run.config, run.learning_rate, run.seed, evaluations=1)
            facts = (run.config, run.learning_rate, run.seed, run.num_params)
            Run(task, *facts, tuple(curve)).append_to(file_of(task, steps), training)
            print(task, steps, run.num_params, run.score, curve[-1], flush=True)


def short_runs(task: str, steps: int) -> list[Run]:
    """Returns the trainings of a length."""
    return Table.read_file(file_of(task, steps), _space(task))


def pairs(task: str, steps: int) -> Iterator[tuple[Run, Run]]:
    """Yields whole trainings and the short ones of the same configuration, rate and seed."""
    short = {_key(run): run for run in short_runs(task, steps)}
    for run in whole_runs(task):
        if _key(run) in short:
            yield run, short[_key(run)]


def judge(task: str, steps: int) -> dict[str, object]:
    """Returns what the trainings of a length say of the whole ones of a task."""
    found = list(pairs(task, steps))
    whole = np.array([run.score for run, _ in found])
    curves = np.array([short.curve[-1] for _, short in found])
    signals = {"score": curves[:, 1], "loss": -curves[:, 2]}
    better = whole >= np.quantile(whole, 0.7)
    return {
        "task": task,
        "steps": steps,
        "trainings": len(found),
        "seconds": round(float(median(curves[:, 3])), 2),
        **{f"tau_{name}": _tau(signal, whole) for name, signal in signals.items()},
        **{f"tau_{name}_best": _tau(s[better], whole[better]) for name, s in signals.items()},
        **{
            f"gap_{name}_{full}": _gap(task, found, signal, full)
            for name, signal in (signals | {"chance": None}).items()
            for full in FULL
        },
        **{f"cost_{full}": round(steps / WHOLE + full / NUM_TRIALS, 3) for full in FULL},
    }


def _gap(
    task: str, found: list[tuple[Run, Run]], signal: np.ndarray | None, full: int
) -> tuple[float, float]:
    """Returns mean and deviation of how far a front by what looked best short falls short.

    Without a signal it is drawn by chance: what taking so few alone comes to.
    """
    runs, gaps = [run for run, _ in found], []
    table = Table(runs, _space(task))
    for seed in range(ORDERS):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(runs))[:NUM_TRIALS]
        looks = generator.random(len(order)) if signal is None else signal[order]
        kept = _promising([runs[i] for i in order], looks, full)
        gaps.append(area(table, [runs[i] for i in order]) - area(table, kept))
    return round(float(np.mean(gaps)), 4), round(float(np.std(gaps)), 4)


def _promising(runs: list[Run], signal: np.ndarray, full: int) -> list[Run]:
    """Returns so many runs: fronts of the signal, one after the other, each spread evenly."""
    left, kept = list(range(len(runs))), []
    while len(kept) < min(full, len(runs)):
        front: list[int] = []
        for i in sorted(left, key=lambda i: (runs[i].num_params, -signal[i])):
            if not front or signal[i] > signal[front[-1]]:
                front.append(i)
        wanted = full - len(kept)
        if len(front) > wanted:
            spread = np.linspace(0, len(front) - 1, wanted).round().astype(int)
            front = [front[k] for k in spread] if wanted > 1 else [front[-1]]
        kept += front
        left = [i for i in left if i not in front]
    return [runs[i] for i in kept]


def _space(task: str):
    return Table.load(TABLE / "results", task, batch_size=BATCH_SIZE).space


def _tau(signal: np.ndarray, whole: np.ndarray) -> float:
    return round(float(kendalltau(signal, whole)[0]), 3)


def _key(run: Run) -> tuple:
    return json.dumps(run.to_dict()["config"]), run.learning_rate, run.seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser, ["trec", "questions"])
    parser.add_argument("--judge-only", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    for task in () if arguments.judge_only else arguments.tasks:
        collect(task, arguments)
    tasks = [task for task in arguments.tasks if file_of(task, LENGTHS[0]).exists()]
    rows = [judge(task, steps) for task in tasks for steps in LENGTHS]
    (RESULTS / "shorter.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
