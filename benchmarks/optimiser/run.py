"""Compares samplers on synthetic searches with a known front; `README.md` says what it shows.

    OMP_NUM_THREADS=1 python benchmarks/optimiser/run.py --small     # minutes
    OMP_NUM_THREADS=1 python benchmarks/optimiser/run.py             # the whole table: many hours

Every search is stored in results/runs/<method>.jsonl as soon as it is done; what is stored is not
run again while the code behind it is the same. So the command may be stopped, run again, run on
more processes, or for some methods first. `summarise.py` then makes the table and the plot.
"""

import argparse
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import torch
from methods import EVERY, SAMPLERS, Search, code_of
from problem import FAMILIES, Problem
from summarise import summarise

RUNS = Path(__file__).parent / "results" / "runs"
KEY = ("method", "family", "layers", "instance", "q")


def run(key: dict, budget: int, limit: float) -> dict:
    """Returns the record of one search, cut short once its proposals took ``limit`` CPU seconds."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    problem = Problem(key["layers"], key["instance"], key["family"])
    search = Search(problem, key["method"], key["instance"])
    started = time.perf_counter()
    while len(search.scores) < budget and sum(search.seconds) < limit:
        search.advance(min(key["q"], budget - len(search.scores)))
    seconds = np.array(search.seconds)
    means = [
        round(float(part.mean()), 4) for part in np.split(seconds, range(20, len(seconds), 20))
    ]
    return key | {
        "code": code_of(key["method"]),
        "budget": budget,
        "evaluations": len(search.scores),
        "curve": search.curve(),
        "every": EVERY,
        "cpu_seconds_per_proposal_by_20": means,
        "wall_seconds": round(time.perf_counter() - started, 1),
    }


def stored(method: str) -> list[dict]:
    """Returns the records of a method that the present code would give again, the longest each."""
    file = RUNS / f"{method}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    records = [record for record in map(json.loads, lines) if record["code"] == code_of(method)]
    records.sort(key=lambda record: record["budget"])
    return [*{tuple(record[name] for name in KEY): record for record in records}.values()]


def missing(options: argparse.Namespace) -> list[dict]:
    """Returns the keys of the searches that are still to be run, all methods of an instance first.

    So an interrupted run has whole comparisons on fewer instances.
    """
    done = {
        tuple(record[name] for name in KEY)
        for method in options.methods
        for record in stored(method)
        if record["budget"] >= options.budget
    }
    keys = product(
        range(options.instances), options.layers, options.families, options.q, options.methods
    )
    ordered = [(method, family, layers, i, q) for i, layers, family, q, method in keys]
    return [dict(zip(KEY, key, strict=True)) for key in ordered if key not in done]


def store(record: dict) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / f"{record['method']}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a preset that runs in minutes")
    parser.add_argument("--methods", nargs="+", choices=[*SAMPLERS], default=[*SAMPLERS])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=[*FAMILIES])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12, 24, 32])
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--q", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=1800, help="CPU seconds for the proposals of one search"
    )
    options = parser.parse_args()
    if options.small:
        options.layers, options.q, options.budget = [6, 24], [1], 60
        options.instances = min(options.instances, 2)
        options.methods = [name for name in options.methods if name != "gp"]
    return options


def main() -> None:
    options = read_options()
    todo = missing(options)
    print(f"{len(todo)} searches to run", flush=True)
    with ProcessPoolExecutor(options.processes) as pool:
        futures = [pool.submit(run, key, options.budget, options.limit) for key in todo]
        for number, future in enumerate(as_completed(futures), start=1):
            record = future.result()
            store(record)
            where = " ".join(str(record[name]) for name in KEY)
            print(
                f"{number}/{len(todo)} {where}: {record['curve'][-1]} after "
                f"{record['evaluations']}, {record['wall_seconds']} s",
                flush=True,
            )
    summarise({method: stored(method) for method in SAMPLERS})


if __name__ == "__main__":
    main()
