"""How far a run is: a value that views, logs and `status` show.

Imports `errors`, `trial` and `search`; imported by `live` and the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean

from .search import Search
from .trial import TrialRecord

__all__ = ["Progress", "progress_of"]

# How many of the latest trials tell how long the next ones take.
RECENT_TRIALS = 20


@dataclass(frozen=True)
class Progress:
    """What a run has done and does.

    Attributes:
        num_trials: Trials that shall be done, or more where a pilot needs them; None if nobody
            said.
        complete: Complete trials.
        failed: Trials that ended without a result.
        waiting: Queued trials.
        running: Trials that are being trained, the oldest first.
        front: The front, fewest parameters first.
        failures: Failed trials, the latest first.
        seconds_per_trial: Mean of the latest trials that are done; None before the first.
        seconds_left: Until `num_trials` are done; None if it cannot be told.
        at: When this was so, in local time.
        stopped: Trials that were stopped at a rung, which are done too.
    """

    num_trials: int | None
    complete: int
    failed: int
    waiting: int
    running: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    failures: tuple[TrialRecord, ...]
    seconds_per_trial: float | None
    seconds_left: float | None
    at: datetime
    stopped: int = 0

    @property
    def done(self) -> int:
        """Trials that count as done: complete, or stopped at a rung."""
        return self.complete + self.stopped

    @property
    def best(self) -> TrialRecord | None:
        """The member of the front that is believed to score best."""
        return self.front[-1] if self.front else None


def progress_of(
    search: Search, num_trials: int | None = None, *, now: datetime | None = None
) -> Progress:
    """Returns how far a search is.

    Args:
        search: The search; only read.
        num_trials: Complete trials that are wanted; None if unknown.
        now: The present in local time; None asks the clock.
    """
    now = now or datetime.now()
    records = search.trials
    complete = [record for record in records if record.state == "COMPLETE"]
    failed = [record for record in records if record.state == "FAIL"]
    running = [record for record in records if record.state == "RUNNING"]
    done = [record for record in records if record.state == "COMPLETE" or record.is_stopped]
    seconds = [record.seconds for record in done[-RECENT_TRIALS:] if record.seconds is not None]
    each = mean(seconds) if seconds else None
    # a pilot takes the trials it needs, were they more than the budget has
    wanted = num_trials and max(num_trials, len(done) + len(running))
    return Progress(
        num_trials=wanted,
        complete=len(complete),
        failed=len(failed),
        waiting=sum(record.state == "WAITING" for record in records),
        running=tuple(sorted(running, key=lambda record: record.started or now)),
        front=tuple(search.front()),
        failures=tuple(reversed(failed)),
        seconds_per_trial=each,
        seconds_left=_seconds_left(wanted, len(done), running, each, now),
        at=now,
        stopped=len(done) - len(complete),
    )


def _seconds_left(
    num_trials: int | None,
    num_done: int,
    running: Sequence[TrialRecord],
    each: float | None,
    now: datetime,
) -> float | None:
    """What is left of the work, shared by as many workers as are at it."""
    if num_trials is None or each is None:
        return None
    done = sum(
        min(each, max(0.0, (now - record.started).total_seconds()))
        for record in running
        if record.started is not None
    )
    return max(0.0, (num_trials - num_done) * each - done) / max(1, len(running))
