"""Where a training that is going on keeps its state, so that another process may go on from there.

One file for each training, named by what is trained: whoever is given the same configuration again,
because its worker died or was interrupted, finds it. It is safetensors with JSON in its header,
never pickle, is replaced as a whole, and goes when the training ends.

Imports `errors` and `run`; imported by `training`.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import RunError, WorkerError
from ..run.json_file import plain, refuse_odd_file

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)

# A training that takes no longer never writes one; what a dead worker loses is about as much.
SECONDS_BETWEEN = 60.0
# Writing shall take at most this share of the time of a training.
LARGEST_SHARE = 0.05


class Checkpoint:
    """The file of one training; errors in reading or writing it are warnings.

    As a context it removes the file in the end, unless the training was only interrupted.

    Args:
        folder: Where it lies, made if it is missing; None keeps nothing.
        facts: All that the training depends on, JSON-compatible.

    Attributes:
        resumed_step: Steps that were done when the training went on from here, else 0.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        text = json.dumps(plain(dict(facts)), sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.file = None if folder is None else folder / f"{self.identity}.safetensors"
        self.resumed_step = 0
        self._due = time.monotonic() + SECONDS_BETWEEN

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = error is None or isinstance(error, Exception)
        if ended and not isinstance(error, WorkerError):
            self.discard()

    def is_due(self) -> bool:
        """Returns whether it is time to write."""
        return self.file is not None and time.monotonic() >= self._due

    def read(self, max_bytes: int) -> bytes | None:
        """Returns what the file holds; None if there is none that can be read.

        Args:
            max_bytes: A larger file is not ours.
        """
        if self.file is None or not self.file.exists():
            return None
        try:
            refuse_odd_file(self.file, max_bytes)
            return self.file.read_bytes()
        except (OSError, RunError) as error:
            self.ignore(str(error))
            return None

    def ignore(self, reason: str) -> None:
        """Says that what the file holds is of no use."""
        logger.warning(
            "The checkpoint %s is ignored and the training starts afresh: %s", self.file, reason
        )

    def write(self, data: bytes) -> None:
        """Replaces the file as a whole."""
        if self.file is None:
            return
        started = time.monotonic()
        try:
            self._replace(self.file, data)
        except OSError as error:
            logger.warning(
                "No checkpoint in %s: %s; the training goes on without.", self.file.parent, error
            )
        now = time.monotonic()
        self._due = now + max(SECONDS_BETWEEN, (now - started) / LARGEST_SHARE)

    def discard(self) -> None:
        """Removes the file, and what a crash left of another."""
        if self.file is None:
            return
        for file in (self.file, *self.file.parent.glob(f".{self.file.name}.*")):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("The checkpoint %s stays behind: %s", file, error)

    @staticmethod
    def _replace(file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # a name of its own, as a worker that was thought dead may write the same file
        handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with open(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, file)
        except OSError:
            os.unlink(partial)
            raise
