"""What a trial costs in the store, by the number of trials that are finished already.

    python -m benchmarks.stress.cost

For SQLite and PostgreSQL, 0, 1,000 and 10,000 finished trials, and 64 more that run: the time that
a worker takes to ask for a trial and to tell its result, the processor time of its own process, and
how long it holds the lock that others wait for. Proposals are drawn at random. Writes
``results/cost.json``.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import optuna

from benchmarks.stress.filled import fill
from benchmarks.stress.space import SPACE, scored
from peft_autoconfig.search import Search
from tests.stress.postgres import Server

RESULTS = Path(__file__).parent / "results" / "cost.json"
FINISHED = (0, 1_000, 10_000)
RUNNING = 64
TRIALS = 10


def measure(search: Search) -> dict[str, float]:
    """Returns medians over some trials, in milliseconds."""
    place, held = search._store.session._place, [0.0]
    lock = place.lock

    @contextmanager
    def timed():
        with lock() as connection:
            begin = time.perf_counter()
            yield connection
            held[0] += time.perf_counter() - begin

    place.lock = timed
    found: dict[str, list[float]] = {"ask_ms": [], "tell_ms": [], "cpu_ms": [], "lock_ms": []}
    for _ in range(TRIALS + 1):
        held[0], cpu, begin = 0.0, time.process_time(), time.perf_counter()
        trial = search.ask()
        asked = time.perf_counter()
        search.tell(trial.number, scored(trial.config), seconds=60.0)
        told = time.perf_counter()
        found["ask_ms"].append(1e3 * (asked - begin))
        found["tell_ms"].append(1e3 * (told - asked))
        found["cpu_ms"].append(1e3 * (time.process_time() - cpu))
        found["lock_ms"].append(1e3 * held[0])
    return {name: round(statistics.median(values[1:]), 1) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finished", type=int, nargs="+", default=FINISHED)
    options = parser.parse_args()
    rows = []
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        for finished in options.finished:
            for name, url in (("sqlite", None), ("postgresql", server.url)):
                path = Path(folder, f"{name}-{finished}")
                sampler = optuna.samplers.RandomSampler(seed=0)
                fill(Search(SPACE, path, sampler=sampler, storage=url), finished, RUNNING)
                server.sql("ANALYZE")  # as the server itself does within a minute
                begin, cpu = time.perf_counter(), time.process_time()
                search = Search(SPACE, path, sampler=sampler, storage=url)
                assert len(search.trials) == finished + RUNNING
                first = {
                    "first_read_s": round(time.perf_counter() - begin, 2),
                    "first_read_cpu_s": round(time.process_time() - cpu, 2),
                }
                where = {"store": name, "finished": finished, "running": RUNNING}
                rows.append(
                    where | measure(search) | first | {"load": round(os.getloadavg()[0], 1)}
                )
                print(rows[-1], flush=True)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
