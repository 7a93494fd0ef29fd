"""Ctrl-C and SIGTERM: the first one is heeded in good order, a second one ends the process at once.

Python hears a signal only between two of its own instructions, so that a process which waits in a
library, as for a data base that stands still, would not hear a second one either. A thread does.

Imports nothing of ours; imported by `app` and `examples/search.py`.
"""

import os
import signal
import socket
import threading
import time
from types import FrameType

__all__ = ["heed_interruptions"]

# A terminal and a launcher may both pass one Ctrl-C on.
SECONDS_OF_ONE = 0.5

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def heed_interruptions() -> None:
    """Has the first SIGINT or SIGTERM raise `KeyboardInterrupt`, and a later one end the process.

    To be called once, from the main thread. The exit code at the end is 128 and the signal.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # what children are sent must not end this process
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    for number in _SIGNALS:
        signal.signal(number, _interrupt_once)
    threading.Thread(target=_end_at_second, args=(heard, told), daemon=True).start()


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupts, unless that would break off what the first interruption began."""
    for heeded in _SIGNALS:
        signal.signal(heeded, _pass)
    raise KeyboardInterrupt


def _pass(number: int, frame: FrameType | None) -> None:
    """Leaves a second signal to the thread; to ignore it would keep it from there too."""


def _end_at_second(heard: socket.socket, _open: socket.socket) -> None:
    first = None
    while True:
        for number in heard.recv(64):
            if number not in _SIGNALS:
                continue
            first = first or time.monotonic()
            if time.monotonic() - first > SECONDS_OF_ONE:
                os._exit(128 + number)
