"""The front of a run, by what a model of its scores believes, and the file that has it.

Imports `run`, `snapshot`, `trial` and, late, `sampler`; imported by `search`.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

import optuna
from optuna.trial import TrialState

from ..run.folder import RunFolder
from ..space import SearchSpace
from .snapshot import Snapshot
from .trial import Records, TrialRecord, front_member, non_dominated

__all__ = ["FrontFile", "believed_members"]


def believed_members(
    study: optuna.Study, space: SearchSpace, records: Records
) -> list[TrialRecord]:
    """Returns the members of the front of a study, fewest parameters first.

    Args:
        study: The trials.
        space: What they are of.
        records: Their records.
    """
    from ..sampler import believed_front  # late, since nothing else here needs a model

    trials = study.get_trials(deepcopy=False)
    return [
        replace(
            records.of(trials[member.number]),
            mean=member.score,
            deviation=member.deviation,
            confidence=member.confidence,
        )
        for member in believed_front(study, space)
    ]


class FrontFile:
    """``front.json`` of one run.

    It is renewed whenever a score adds to the front of the bare scores, and when somebody asks for
    it: in between a trial hardly moves what is believed, and with hundreds of workers each model
    would cost more than the trial.

    Args:
        folder: The run folder.
        records: The records of its trials.
        num_base_params: Parameters of the base model, if they are known.
        members: Returns the front of the trials of a snapshot.
    """

    def __init__(
        self,
        folder: RunFolder,
        records: Records,
        num_base_params: int | None,
        members: Callable[[Snapshot], list[TrialRecord]],
    ) -> None:
        self._folder = folder
        self._records = records
        self._num_base_params = num_base_params
        self._members = members
        self._seen: set[int] = set()
        self._best: list[TrialRecord] = []
        self._best_written: list[TrialRecord] | None = None
        self._changing = threading.Lock()

    def follow(self, known: Snapshot, read: Callable[[], Snapshot]) -> None:
        """Replaces the file if a score adds to the front of the scores.

        Args:
            known: The trials as far as they are known here.
            read: Reads all there are now. It is called under the lock of the folder, so that of
                processes that share it none puts an older front in place of a newer one.
        """
        with self._changing:
            self._add(known)
            if self._best != self._best_written:
                self._write(read)

    def write(self, read: Callable[[], Snapshot]) -> None:
        """Replaces the file; see `follow`."""
        with self._changing:
            self._write(read)

    def _write(self, read: Callable[[], Snapshot]) -> None:
        with self._folder.lock():
            snapshot = read()
            self._add(snapshot)
            members = self._members(snapshot)
            self._folder.write_front([front_member(m, self._num_base_params) for m in members])
            self._best_written = self._best

    def _add(self, snapshot: Snapshot) -> None:
        # What has the best score of some trials and not of all is dominated by one of all.
        new = snapshot.beyond(self._seen, TrialState.COMPLETE)
        self._seen.update(trial.number for trial in new)
        self._best = non_dominated([*self._best, *(self._records.of(t) for t in new)])
