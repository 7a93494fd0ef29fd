"""Ctrl-C and SIGTERM, once and twice, sent to real processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from peft_autoconfig import Search
from peft_autoconfig_cli.interruption import SECONDS_OF_ONE

ROOT = Path(__file__).parents[2]

CLEANS_UP = """
import time
from peft_autoconfig_cli.interruption import heed_interruptions
heed_interruptions()
try:
    print("works", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("cleans up", flush=True)
    time.sleep({seconds})
print("ends", flush=True)
"""
HAS_CHILDREN = """
import multiprocessing, os, signal, time
from peft_autoconfig_cli.interruption import SECONDS_OF_ONE, heed_interruptions
heed_interruptions()
for _ in range(2):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    time.sleep(1.2 * SECONDS_OF_ONE)
    child.terminate()
    child.join()
print("ends", flush=True)
"""


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )


def insist(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Sends a signal anew, as one does, until the process has ended.

    A busy machine may deliver two of them nearly at once, and they count as one then.
    """
    while process.poll() is None:
        time.sleep(1.2 * SECONDS_OF_ONE)
        process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_at_once(number):
    with start(CLEANS_UP.format(seconds=600)) as process:
        assert process.stdout.readline() == "works\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleans up\n"
        insist(process, number)
        assert process.stdout.read() == ""
    assert process.returncode == 128 + number


def test_one_that_comes_by_two_ways_counts_once():
    """Of a terminal and of a launcher."""
    with start(CLEANS_UP.format(seconds=1)) as process:
        assert process.stdout.readline() == "works\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "cleans up\nends\n"
    assert process.returncode == 0


def test_what_children_are_sent_ends_no_parent():
    with start(HAS_CHILDREN) as process:
        assert process.stdout.read() == "ends\n"
    assert process.returncode == 0


def test_a_search_that_cannot_hand_its_trial_back_is_ended(settings, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "peft_autoconfig_cli", "search", *map(str, settings)]
    command += ["--trials", "500", "--output", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as search:
        assert search.stderr is not None
        assert any("trial 0" in line for line in search.stderr)
        with held_while_it_trains(folder):
            search.terminate()
            insist(search, signal.SIGTERM)
            rest = search.stderr.read()
    assert search.returncode == 128 + signal.SIGTERM, rest
    assert "Interrupted" not in rest
    # the next process takes it back
    assert "RUNNING" in {record.state for record in Search.open(folder).trials}


@contextmanager
def held_while_it_trains(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder in which a trial is under way, which so cannot end."""
    run = Search.open(folder)
    while True:
        with FileLock(folder / ".lock"):
            if "RUNNING" in {record.state for record in run.trials}:
                yield
                return
        time.sleep(0.01)
