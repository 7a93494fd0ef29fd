"""When failures are no longer single trials' misfortune but the search's.

Imports `trial`; imported by `search`.
"""

from collections import Counter
from collections.abc import Sequence

from .trial import TrialRecord

__all__ = ["all_failed_at_first", "complaint"]

# A search in which nothing works is stopped before it has spent its budget.
FIRST_FAILURES = 5
ENOUGH_FOR_MAJORITY = 10


def all_failed_at_first(records: Sequence[TrialRecord]) -> bool:
    """Returns whether no trial of several has worked, so that the fault is not theirs."""
    return len(records) >= FIRST_FAILURES and all(record.state == "FAIL" for record in records)


def complaint(records: Sequence[TrialRecord]) -> str | None:
    """Returns why a search should stop, with the reasons counted; None while it may go on.

    Args:
        records: The trials of one worker, finished ones only.
    """
    failed = [record for record in records if record.state == "FAIL"]
    most = len(records) >= ENOUGH_FOR_MAJORITY and 2 * len(failed) > len(records)
    if not (most or all_failed_at_first(records)):
        return None
    reasons = Counter(record.reason for record in failed).most_common(3)
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return (
        f"{len(failed)} of {len(records)} trials failed, so the search was stopped: {counted}. "
        f"Mend the objective and run the same command again; what is complete is kept."
    )
