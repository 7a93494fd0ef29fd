"""Who works on a trial, whether that worker still lives, and the sign of life it gives.

A running trial carries its owner: host, process id, the start of that process, and the session of
the search in it. On the same host (the same boot of it, and the same container) the operating
system knows if the owner died; inside of the same process it is known which session holds what.
Otherwise the beat tells, a number that the owner keeps raising; what counts is how long an observer
has not seen it change, by the observer's own steady clock, so that clocks that jump or disagree
kill nobody. While the store is out of reach nobody can raise it, so that this time does not count.

Imports nothing of ours; imported by `store`.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

__all__ = ["GRACE_SECONDS", "Observer", "Pulse", "this_process"]

logger = logging.getLogger(__name__)

# As Optuna's documentation suggests for its own heartbeat: 60 s, and several may be missed.
BEAT_SECONDS = 60.0
GRACE_SECONDS = 300.0

# Start times of one process differ by rounding, of two that share an id by far more.
_START_TOLERANCE_SECONDS = 1.0


def this_process() -> dict[str, Any]:
    """Returns the owner that this process is, as JSON-compatible values."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "pid": process.pid,
        "started": _started(process),
    }


def _place() -> str:
    """Returns where a process id means the same process: this boot, this container of the host."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux, hence no containers that share a name
        return socket.gethostname()


def _started(process: psutil.Process) -> float:
    """Returns when a process started, in seconds since boot: a clock that is set shifts both."""
    return float(round(process.create_time() - psutil.boot_time(), 2))


def _lives(owner: dict[str, Any]) -> bool:
    """Returns whether the process of an owner on this host is running still."""
    try:
        process = psutil.Process(owner["pid"])
        if abs(_started(process) - owner["started"]) > _START_TOLERANCE_SECONDS:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# The trials that this process works on: session and number. A process that was forked works on none
# of them, and its id tells so.
_held_here: set[tuple[str, int]] = set()


class Observer:
    """Judges whether the owners of running trials are lost."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed: dict[int, tuple[Any, float]] = {}

    def verdict(self, trial: int, owner: dict[str, Any] | None, beat: Any) -> str | None:
        """Returns why the owner of a trial is lost, or None if it may well be alive.

        Args:
            trial: Number of the running trial.
            owner: What `this_process` gave there; None if the trial was never handed out.
            beat: The latest beat of the trial.
        """
        if owner is None:
            return "its worker died before it began"
        if owner.get("place") == _place():
            if not _lives(owner):
                return f"its worker, process {owner['pid']}, died"
            if owner["pid"] == os.getpid():
                return None if (owner.get("session"), trial) in _held_here else "interrupted"
        last, since = self._changed.get(trial, (None, 0.0))
        if last != (owner, beat):
            self._changed[trial] = ((owner, beat), self._clock())
            return None
        silent = self._clock() - since
        if silent < GRACE_SECONDS:
            return None
        return f"its worker on {owner['host']} gave no sign of life for {silent:.0f} s"

    def forget(self) -> None:
        """Begins to observe anew, after a time in which no beat could be stored."""
        self._changed.clear()


class Pulse:
    """Gives the sign of life of this process for the trials that it holds, from a thread.

    Args:
        session: What tells the search that holds them from others, also in this process.
        beat: Stores a beat; called with the number of the trial and the beat.
        missed: Called when a beat could not be stored.
    """

    def __init__(
        self,
        session: str,
        beat: Callable[[int, int], None],
        missed: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._beat = beat
        self._missed = missed
        self._beats: dict[int, int] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __contains__(self, trial: object) -> bool:
        return trial in self._beats

    def hold(self, trial: int) -> None:
        """Begins to beat for a trial."""
        with self._changed:
            self._beats[trial] = 0
            _held_here.add((self._session, trial))
            # a fork leaves the thread behind
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
                self._thread.start()

    def release(self, trial: int) -> None:
        """Ends the beat for a trial; the thread ends with the last one."""
        with self._changed:
            self._beats.pop(trial, None)
            _held_here.discard((self._session, trial))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._beats, timeout=BEAT_SECONDS)
                if not self._beats:
                    self._thread = None
                    return
                self._beats = {trial: beat + 1 for trial, beat in self._beats.items()}
                beats = dict(self._beats)
            for trial, beat in beats.items():
                self._try(trial, beat)

    def _try(self, trial: int, beat: int) -> None:
        try:
            self._beat(trial, beat)
        except Exception as error:  # a store that is out of reach now may be back in a minute
            logger.warning("No sign of life for trial %d: %s", trial, error.__cause__ or error)
            self._missed()
