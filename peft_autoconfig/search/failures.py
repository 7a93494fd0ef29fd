"""When failures are no longer single trials' misfortune but the search's.

Imports `errors` and `trial`; imported by `search`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from ..errors import SearchError
from .trial import TrialRecord

if TYPE_CHECKING:
    from .search import Search

__all__ = ["all_failed_at_first", "complaint", "refuse_failures"]

# A search in which nothing works is stopped before it has spent its budget.
FIRST_FAILURES = 5
ENOUGH_FOR_MAJORITY = 10
LONGEST_REASON = 300

NUMBER = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


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
    counted = "; ".join(f"{count} x {reason}" for reason, count in _commonest(failed))
    return (
        f"{len(failed)} of {len(records)} trials failed, so the search was stopped: {counted}. "
        f"Mend the objective and run the same command again; what is complete is kept."
    )


def refuse_failures(search: "Search", records: Sequence[TrialRecord]) -> None:
    """Stops a search in which the first trials all fail, or more than half of them.

    Args:
        search: The search.
        records: The trials of one worker, finished ones only.

    Raises:
        SearchError: So it is; the message counts the reasons.
    """
    reason = complaint(records)
    if reason is None:
        return
    if all_failed_at_first(records):  # they come first once the fault is mended
        for record in records:
            if record.config is not None:
                search.enqueue(record.config, record.learning_rate)
    raise SearchError(reason)


def _commonest(failed: Sequence[TrialRecord]) -> list[tuple[str, int]]:
    """Returns the commonest reasons, each as its first trial gave it, and how often each came.

    Reasons that differ in their numbers alone are one: the step at which a loss was lost is not
    why. What is long is cut, since errors of devices and libraries fill screens.
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for record in failed:
        reason = " ".join(str(record.reason).split())
        key = NUMBER.sub("#", reason)
        first.setdefault(key, reason)
        counts[key] += 1
    return [
        (shorten(first[key], LONGEST_REASON, placeholder=" ..."), count)
        for key, count in counts.most_common(3)
    ]
