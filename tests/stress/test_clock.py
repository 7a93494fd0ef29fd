"""A worker whose clock jumps by a day, ahead and back, in the middle of its trainings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.search_cases import complete, open_search, points

DAY = 86_400
WORKS = """
import sys, time, pathlib
from tests.search.search_cases import open_search, scored
def objective(config, learning_rate):
    print(time.time(), flush=True)
    input()
    return scored(config, learning_rate)
search = open_search(pathlib.Path(sys.argv[1]), storage=sys.argv[2])
search.run(objective, 3, max_hours=1)
"""


@pytest.fixture
def library():
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: apt-get install faketime)")
    return found[0]


def test_clock_jumps_lose_nothing(server, tmp_path, library):
    folder, clock = tmp_path / tmp_path.name, tmp_path / "clock"
    clock.write_text("+0")
    # by how much the clock is off stands in the file; the steady clock is left as it is
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    switches = ("FAKETIME_NO_CACHE", "DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC")
    times = []
    with subprocess.Popen(
        [sys.executable, "-c", WORKS, str(folder), server.url],
        env=os.environ | faked | dict.fromkeys(switches, "1"),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        for offset in (DAY, -DAY, 0):
            times.append(float(worker.stdout.readline()))
            clock.write_text(f"{offset:+d}")
            # whoever asks now lets the worker be, which seems to be of another day
            other = open_search(tmp_path / "other" / folder.name, storage=server.url)
            [running] = [record for record in other.trials if record.state == "RUNNING"]
            asked = other.ask()
            other.fail(asked.number, "only looked")
            assert points([asked]) != points([running])
            assert other.trials[running.number].state == "RUNNING"
            worker.stdin.write("\n")
            worker.stdin.flush()
    assert worker.returncode == 0
    assert times[1] - times[0] > DAY / 2 < times[1] - times[2], "the clock did not jump"
    done = complete(other)
    assert len(done) == 3 == len(set(points(done)))
    assert all(0 <= record.seconds < 3600 for record in done)
