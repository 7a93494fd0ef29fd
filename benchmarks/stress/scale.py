"""Many workers at one data base, simulated: how fast it hands out trials, what it costs to wait.

    python -m benchmarks.stress.scale --workers 64 --trials 640
    python -m benchmarks.stress.scale --workers 8 --trials 80 --sampler bayesian

Each worker is a thread with a `Search` of its own that asks, sleeps as long as a training is said
to take, and tells. So one process does the work of all workers beside the server, and the figures
are a lower bound of what as many machines would reach. Adds a row to ``results/scale.json``.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import optuna

from benchmarks.stress.run import write
from peft_autoconfig.search import Search
from tests.stress.postgres import Server
from tests.stress.worker import SPACE, scored

RESULTS = Path(__file__).parent / "results" / "scale.json"


class Clock:
    """Adds up seconds over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds
            self.count += 1


def simulate(url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Returns the figures of one simulation."""
    asking, telling, training = Clock(), Clock(), Clock()
    left = [options.trials]
    lock, errors = threading.Lock(), []

    def worker(number: int) -> None:
        try:
            sampler = None if options.sampler == "bayesian" else optuna.samplers.RandomSampler()
            search = Search(SPACE, folder / str(number) / "run", sampler=sampler, storage=url)
            ready.wait()
            while time.perf_counter() - begun[0] < options.limit:
                with lock:
                    if left[0] <= 0:
                        return
                    left[0] -= 1
                begin = time.perf_counter()
                trial = search.ask()
                asking.add(time.perf_counter() - begin)
                time.sleep(options.seconds)
                training.add(options.seconds)
                begin = time.perf_counter()
                search.tell(trial.number, scored(trial.config), seconds=options.seconds)
                telling.add(time.perf_counter() - begin)
        except Exception as error:
            errors.append(repr(error))

    def begin_together() -> None:
        begun.append(time.perf_counter())

    begun: list[float] = []
    ready = threading.Barrier(options.workers, begin_together)
    threads = [threading.Thread(target=worker, args=(n,)) for n in range(options.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun[0]
    of_all = wall * options.workers
    return {
        "workers": options.workers,
        "sampler": options.sampler,
        "trials": asking.count,
        "training_seconds": options.seconds,
        "proposals_per_second": round(asking.count / wall, 2),
        "store_seconds_per_trial": round((asking.seconds + telling.seconds) / asking.count, 3),
        "idle_share": round(1 - training.seconds / of_all, 3),
        "errors": errors[:3],
        "load_before": options.load,
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a training")
    parser.add_argument("--limit", type=float, default=600, help="seconds; ask no more after them")
    parser.add_argument("--sampler", choices=["random", "bayesian"], default="random")
    parser.add_argument("--connections", type=int, default=100, help="that the server takes")
    options = parser.parse_args()
    options.load = round(os.getloadavg()[0], 1)
    server = Server(connections=options.connections)
    with server, tempfile.TemporaryDirectory() as folder:
        row = simulate(server.url, Path(folder), options)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*rows, row], indent=2) + "\n")
    if options.workers == 64 and options.sampler == "random":
        write({"proposals_per_second_64_workers": row["proposals_per_second"]})


if __name__ == "__main__":
    main()
