"""Kills the workers of a search in PostgreSQL, again and again, and counts what is lost.

    python -m benchmarks.stress.run                        # >= 1,000 kills, an hour on two cores
    python -m benchmarks.stress.run --kills 50 --minutes 5

From the root of the repository; needs Debian's ``postgresql`` and the extra ``postgres``. Each
search has a budget of 50 trials; in between the data base crashes and comes back, workers are
terminated and stand still. The results are written after each search.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import tempfile
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.stress.fleet import Fleet, Tally
from tests.stress.postgres import Server

RESULTS = Path(__file__).parent / "results" / "summary.json"

TRIALS_OF_SEARCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=240, help="begin no search later")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.3, help="mean length of a trial")
    parser.add_argument("--go-on", action="store_true", help="add to the results that are there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must not be left behind
    known: dict[str, Any] = {"searches": 0, "minutes": 0.0}
    if options.go_on and RESULTS.exists():
        known |= json.loads(RESULTS.read_text())
    tally = Tally.of(known)
    first, begin = known["searches"], time.monotonic() - 60 * known["minutes"]
    generator = random.Random(first)
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        for number in itertools.count(first):
            fleet = Fleet(
                Path(folder, str(number), f"run{number}"),
                server.url,
                workers=options.workers,
                seconds=options.seconds,
                seed=number,
            )
            fleet.run(TRIALS_OF_SEARCH, harm=partial(harm, fleet, server, generator))
            tally = tally.plus(fleet.tally)
            minutes = (time.monotonic() - begin) / 60
            write(tally.values() | {"searches": number + 1, "minutes": round(minutes, 1)})
            shutil.rmtree(Path(folder, str(number)))
            if tally.kills >= options.kills or minutes >= options.minutes:
                break


def harm(fleet: Fleet, server: Server, generator: random.Random, process: BaseProcess) -> None:
    """Does a worker harm of some kind, or now and then the data base."""
    kind = generator.random()
    if kind < 0.90:
        fleet.kill(process)
    elif kind < 0.95:
        fleet.terminate(process)
    elif kind < 0.99:
        fleet.stop(process)
    else:
        server.stop()
        time.sleep(generator.uniform(0, 3))
        server.start()
        fleet.tally.restarts += 1


def write(values: dict[str, object]) -> None:
    """Adds results to those that are there."""
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | values, indent=2) + "\n")


if __name__ == "__main__":
    main()
