"""Many workers at one data base, simulated: how fast it hands out trials, what it costs to wait.

    python -m benchmarks.stress.scale
    python -m benchmarks.stress.scale --workers 8 --training 10 --finished 200 --sampler bayesian

Each worker is a process that asks, sleeps as long as a training is said to take, and tells; it is
forked from one that has read the study, which holds finished trials from the beginning. The server
and all workers share the cores of one machine, so the figures are a lower bound of what as many
machines would reach. Adds rows to ``results/scale.json``.
"""

import argparse
import gc
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import optuna
import psutil

from benchmarks.stress.filled import fill
from benchmarks.stress.run import write
from benchmarks.stress.space import SPACE, scored
from peft_autoconfig.search import Search
from tests.stress.postgres import Server

RESULTS = Path(__file__).parent / "results" / "scale.json"


class Watch:
    """Adds up how long this process holds the lock of a search."""

    def __init__(self, search: Search) -> None:
        self.held = 0.0
        self._place = search._store.session._place
        self._lock = self._place.lock
        self._place.lock = self._timed

    @contextmanager
    def _timed(self):
        with self._lock() as connection:
            begin = time.perf_counter()
            yield connection
            self.held += time.perf_counter() - begin


def work(search: Search, number: int, options: argparse.Namespace, until: float, diary: Path):
    """What one worker does; it writes a line for each trial."""
    generator = random.Random(number)
    sampler = search._store.desk._study.sampler
    sampler.reseed_rng()
    watch = Watch(search)
    try:
        time.sleep(generator.uniform(0, options.training))
        while time.time() < until:
            begin, cpu, held = time.perf_counter(), time.process_time(), watch.held
            trial = search.ask()
            asked = time.perf_counter() - begin
            training = options.training * generator.uniform(0.5, 1.5)
            time.sleep(training)
            begin = time.perf_counter()
            search.tell(trial.number, scored(trial.config), seconds=training)
            line = {
                "at": time.time(),
                "ask": asked,
                "tell": time.perf_counter() - begin,
                "training": training,
                "cpu": time.process_time() - cpu,
                "held": watch.held - held,
            }
            with diary.open("a") as file:
                file.write(json.dumps(line) + "\n")
    except Exception:
        diary.with_suffix(".error").write_text(traceback.format_exc())
    os._exit(0)


def processor_seconds(server: Server) -> float:
    """Returns what the processes of a server have used, those that ended included."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    main = psutil.Process(pid)
    times = [main.cpu_times(), *(child.cpu_times() for child in main.children())]
    own = sum(t.user + t.system for t in times)
    return own + times[0].children_user + times[0].children_system


def simulate(server: Server, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Returns the figures of one simulation."""
    sampler = None if options.sampler == "bayesian" else optuna.samplers.RandomSampler()
    search = Search(SPACE, folder / "run", sampler=sampler, storage=server.url)
    fill(search, options.finished, 0)
    server.sql("ANALYZE")  # as the server itself does within a minute
    assert len(search.trials) == options.finished
    search._store.session.rest()
    gc.freeze()  # so that the workers share what was read
    context = multiprocessing.get_context("fork")
    begin = time.time()
    until = begin + options.training + options.seconds
    served = processor_seconds(server)
    workers = [
        context.Process(target=work, args=(search, n, options, until, folder / f"{n}.jsonl"))
        for n in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    served = processor_seconds(server) - served
    lines = [json.loads(text) for file in folder.glob("*.jsonl") for text in file.open()]
    # while they come and go one after the other there is no crowd
    from_then = [line for line in lines if begin + options.training < line["at"] <= until]
    store = [line["ask"] + line["tell"] for line in from_then]
    trained = statistics.mean(line["training"] for line in from_then)
    errors = [file.read_text()[-300:] for file in folder.glob("*.error")]
    told = len(search.trials) - options.finished
    points = {(str(r.config), r.learning_rate) for r in search.trials}
    return {
        "workers": options.workers,
        "sampler": options.sampler,
        "finished_before": options.finished,
        "trials": told,
        "repeated": options.finished + told - len(points),
        "training_seconds": options.training,
        "proposals_per_second": round(len(from_then) / options.seconds, 2),
        "store_seconds_per_trial": round(statistics.mean(store), 3),
        "idle_share": round(1 - trained / (trained + statistics.mean(store)), 3),
        "lock_ms_per_trial": round(1e3 * statistics.mean(x["held"] for x in from_then), 1),
        "worker_cpu_ms_per_trial": round(1e3 * statistics.mean(x["cpu"] for x in lines), 1),
        "server_cpu_ms_per_trial": round(1e3 * served / len(lines), 1),
        "max_connections": options.connections,
        "failed_workers": len(errors),
        "errors": errors[:2],
        "load_before": options.load,
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 8, 64, 256))
    parser.add_argument("--training", type=float, nargs="+", default=(0.5, 1, 10, 60))
    parser.add_argument("--finished", type=int, default=10_000, help="trials that are there before")
    parser.add_argument("--seconds", type=float, default=60.0, help="that are measured")
    parser.add_argument("--sampler", choices=["random", "bayesian"], default="random")
    parser.add_argument("--connections", type=int, default=300, help="that the server takes")
    wanted = parser.parse_args()
    for workers, training in zip(wanted.workers, wanted.training, strict=True):
        options = argparse.Namespace(**vars(wanted) | {"workers": workers, "training": training})
        options.load = round(os.getloadavg()[0], 1)
        with Server(connections=options.connections) as server:
            with tempfile.TemporaryDirectory() as folder:
                keep(simulate(server, Path(folder), options))


def keep(row: dict[str, object]) -> None:
    """Adds a row to the results."""
    print(json.dumps(row, indent=2), flush=True)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*rows, row], indent=2) + "\n")
    if row["workers"] == 64 and row["sampler"] == "random":
        write({"proposals_per_second_64_workers": row["proposals_per_second"]})


if __name__ == "__main__":
    main()
