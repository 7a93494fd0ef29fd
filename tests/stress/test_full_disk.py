"""A full disk: what does not fit is written once there is room, and a search given up can go on."""

import logging
import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from peft_autoconfig.errors import AutoConfigError, RunError, SearchError
from peft_autoconfig.outcome import Outcome
from tests.search.search_cases import complete, open_search, points, scored

from .postgres import Server, missing


@contextmanager
def disk_of(mebibytes: int) -> Iterator[Path]:
    """A small file system in memory."""
    with tempfile.TemporaryDirectory() as name:
        size = f"size={mebibytes}m,mode=0777"
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", name]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be made here: {done.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


@pytest.fixture
def small_disk():
    with disk_of(4) as folder:
        yield folder


@pytest.fixture
def small_server():
    """A server on a disk of its own, twice as large as an empty data base."""
    if reason := missing():
        pytest.skip(reason)
    with disk_of(100) as folder, Server(folder=folder) as running:
        yield running


def fill(folder: Path) -> Path:
    """Leaves no room in a file system; returns the file to delete."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("peft_autoconfig.search.session.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("peft_autoconfig.search.search.LAST_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("peft_autoconfig.search.handout.LAST_PATIENCE_SECONDS", 0.2)


def bulky(config, learning_rate):
    """A result that needs more room than pages have that are there."""
    text = random.Random(0).randbytes(50_000).hex()
    return Outcome(scored(config, learning_rate), details={"log": text})


@contextmanager
def at_first_warning(mend: Callable[[], None]) -> Iterator[list[str]]:
    """Calls somebody in when a worker first says that it cannot go on; gives what it said."""
    said: list[str] = []

    class Operator(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            if len(said) == 1:
                mend()

    logger, operator = logging.getLogger("peft_autoconfig.search.patience"), Operator()
    logger.addHandler(operator)
    try:
        yield said
    finally:
        logger.removeHandler(operator)


def check(search, n_trials):
    search.run(scored, n_trials)
    done = complete(search)
    assert len(done) == n_trials == len(set(points(done)))
    assert "RUNNING" not in {record.state for record in search.trials}


def test_a_folder_outlives_a_full_disk(small_disk):
    search = open_search(small_disk / "run")
    search.run(scored, 2)
    ballast = fill(small_disk)
    room = threading.Timer(1.0, ballast.unlink)
    room.start()
    # what is beside the study, such as the front, is not waited for
    with suppress(RunError):
        search.run(scored, 30)
    room.join()
    check(search, 32)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_that_stays_is_said(small_disk):
    search = open_search(small_disk / "run")
    search.run(scored, 2)
    ballast = fill(small_disk)
    with pytest.raises(AutoConfigError, match=r"full|No space left"):
        search.run(scored, 60)
    ballast.unlink()
    check(open_search(small_disk / "run"), 12)


def test_a_full_disk_of_the_server_is_outlived(small_server, tmp_path):
    search = open_search(tmp_path / "run", storage=small_server.url)
    search.run(scored, 2)
    ballast = fill(small_server.folder.parent)
    with at_first_warning(ballast.unlink) as said:
        search.run(bulky, 6)
    assert "No space left" in said[0]
    check(search, 8)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_of_the_server_that_stays_is_said(small_server, tmp_path):
    search = open_search(tmp_path / "run", storage=small_server.url)
    search.run(scored, 2)
    ballast = fill(small_server.folder.parent)
    with pytest.raises(SearchError, match=r"No space left.*its disk has room; then run the same"):
        search.run(bulky, 6)
    kept = points(complete(search))
    assert len(kept) >= 2
    ballast.unlink()
    again = open_search(tmp_path / "run")
    check(again, 8)
    assert set(kept) <= set(points(complete(again)))


def test_a_server_that_a_full_disk_ended_is_outlived(small_server, tmp_path):
    """Where its log of changes finds no room it ends, and stays down until somebody comes."""
    search = open_search(tmp_path / "run", storage=small_server.url)
    search.run(scored, 2)
    kept = points(complete(search))
    ballast = fill(small_server.folder.parent)
    ended = []

    def objective(config, learning_rate):
        if not ended:
            changes = "SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))"
            with pytest.raises(RuntimeError, match="No space left"):
                small_server.sql(f"{changes} FROM generate_series(1, 40)")
            ended.append(True)
        return scored(config, learning_rate)

    def mend():
        ballast.unlink()
        small_server.stop()  # it may still be about to end
        small_server.start()

    with at_first_warning(mend) as said:
        search.run(objective, 6)
    assert "is out of reach" in said[0]
    check(search, 8)
    assert set(kept) <= set(points(complete(search)))
