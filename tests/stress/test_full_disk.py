"""A full disk: what does not fit is written once there is room, and a search given up can go on."""

import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from peft_autoconfig.errors import AutoConfigError, RunError
from tests.search.search_cases import complete, open_search, points, scored


@pytest.fixture
def small_disk():
    """A file system of a few MiB in memory."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs", name]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be made here: {done.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


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


def test_a_full_disk_that_stays_is_said(small_disk, monkeypatch):
    monkeypatch.setattr("peft_autoconfig.search.session.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("peft_autoconfig.search.search.LAST_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("peft_autoconfig.search.handout.LAST_PATIENCE_SECONDS", 0.2)
    search = open_search(small_disk / "run")
    search.run(scored, 2)
    ballast = fill(small_disk)
    with pytest.raises(AutoConfigError, match=r"full|No space left"):
        search.run(scored, 60)
    ballast.unlink()
    check(open_search(small_disk / "run"), 12)
