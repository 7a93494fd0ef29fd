"""The front of a run in its folder, kept up with the trials without looking at all of them again.

Imports `run`, `snapshot` and `trial`; imported by `search`.
"""

import threading
from collections.abc import Callable

from optuna.trial import TrialState

from ..run.folder import RunFolder
from .snapshot import Snapshot
from .trial import Records, TrialRecord, front_member, non_dominated

__all__ = ["FrontFile"]


class FrontFile:
    """``front.json`` of one run.

    Args:
        folder: The run folder.
        records: The records of its trials.
        num_base_params: Parameters of the base model, if they are known.
    """

    def __init__(self, folder: RunFolder, records: Records, num_base_params: int | None) -> None:
        self._folder = folder
        self._records = records
        self._num_base_params = num_base_params
        self._seen: set[int] = set()
        self._front: list[TrialRecord] = []
        self._written: list[TrialRecord] | None = None
        self._changing = threading.Lock()

    def follow(self, known: Snapshot, read: Callable[[], Snapshot]) -> None:
        """Replaces the file unless the front is the one that was written last.

        Args:
            known: The trials as far as they are known here.
            read: Reads all there are now. It is called under the lock of the folder, so that of
                processes that share it none puts an older front in place of a newer one.
        """
        with self._changing:
            self._add(known)
            if self._front != self._written:
                self._write(read)

    def write(self, read: Callable[[], Snapshot]) -> None:
        """Replaces the file; see `follow`."""
        with self._changing:
            self._write(read)

    def _write(self, read: Callable[[], Snapshot]) -> None:
        with self._folder.lock():
            self._add(read())
            members = [front_member(record, self._num_base_params) for record in self._front]
            self._folder.write_front(members)
            self._written = self._front

    def _add(self, snapshot: Snapshot) -> None:
        # What is on the front of some trials and not on that of all is dominated by one of all.
        new = snapshot.beyond(self._seen, TrialState.COMPLETE)
        self._seen.update(trial.number for trial in new)
        self._front = non_dominated([*self._front, *(self._records.of(t) for t in new)])
