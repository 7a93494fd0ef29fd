"""A worker whose data base stands still hears the second Ctrl-C, if not the first."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from peft_autoconfig_cli.interruption import SECONDS_OF_ONE
from tests.search.search_cases import complete, open_search, scored

WORKS = """
import sys, time, pathlib
from peft_autoconfig_cli.interruption import heed_interruptions
from tests.search.search_cases import open_search
heed_interruptions()
def objective(config, learning_rate):
    print("training", flush=True)
    time.sleep(600)
open_search(pathlib.Path(sys.argv[1]), storage=sys.argv[2]).run(objective, 4)
"""


@contextlib.contextmanager
def frozen(server) -> Iterator[None]:
    """Has a server and all its processes stand still.

    The first process stands still before its children are listed and goes on after
    them: it alone takes away those that ended, so none of the list can vanish.
    """
    first = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    root = psutil.Process(first)
    root.suspend()
    children = root.children(recursive=True)
    try:
        for process in children:
            process.suspend()
        yield
    finally:
        for process in [*children, root]:
            os.kill(process.pid, signal.SIGCONT)


def test_a_data_base_that_stands_still(server, tmp_path):
    folder = tmp_path / tmp_path.name
    command = [sys.executable, "-c", WORKS, str(folder), server.url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as worker:
        assert worker.stdout.readline() == "training\n"
        with frozen(server):
            while worker.poll() is None:
                worker.send_signal(signal.SIGINT)
                time.sleep(1.2 * SECONDS_OF_ONE)
    assert worker.returncode == 128 + signal.SIGINT
    search = open_search(folder, storage=server.url)
    search.run(scored, 4)
    assert len(complete(search)) == 4
