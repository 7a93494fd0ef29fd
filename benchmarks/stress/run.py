"""Kills the workers of a search in PostgreSQL, again and again, and counts what is lost.

    python -m benchmarks.stress.run                        # >= 1,000 kills, an hour on two cores
    python -m benchmarks.stress.run --kills 50 --minutes 5

From the root of the repository; needs Debian's ``postgresql`` and the extra ``postgres``. Each
epoch has a budget of its own; in between the data base crashes and comes back, workers are
terminated and stand still. The results are written after each epoch.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from tests.stress.fleet import Fleet
from tests.stress.postgres import Server

RESULTS = Path(__file__).parent / "results" / "summary.json"

TRIALS_OF_EPOCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=240, help="begin no epoch later")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.05, help="mean length of a trial")
    options = parser.parse_args()
    generator = random.Random(0)
    begin = time.monotonic()
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(
            Path(folder, "run"), server.url, workers=options.workers, seconds=options.seconds
        )
        tally = fleet.tally

        def harm(process) -> None:
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
                tally.restarts += 1

        while tally.kills < options.kills and time.monotonic() - begin < 60 * options.minutes:
            fleet.run(
                tally.finished + TRIALS_OF_EPOCH,
                harm=harm,
                until=lambda: tally.kills >= options.kills,
            )
            write(tally.values() | {"minutes": round((time.monotonic() - begin) / 60, 1)})


def write(values: dict[str, object]) -> None:
    """Adds results to those that are there."""
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | values, indent=2) + "\n")


if __name__ == "__main__":
    main()
