"""The front made real: its members trained over seeds and saved as ordinary PEFT adapters.

    run/adapters/<trial>/     one adapter of each member, of the seed that is best on dev
    run/comparison.json       every training behind the table

Imports `errors`, `comparison` and `search`; imported by the examples.
"""

from collections.abc import Sequence

from ..errors import SearchError
from ..search import Search
from ..search.trial import TrialRecord
from .comparison import Comparison, Row

__all__ = ["choose_members", "train_front"]


def train_front(search: Search, comparison: Comparison, *, limit: int | None = None) -> list[Row]:
    """Returns a row of the table for each member of the front, its adapter saved in the run folder.

    Args:
        search: A search with complete trials.
        comparison: What trains, over which seeds.
        limit: Members at most, spread over the front; None for all.

    Raises:
        SearchError: No trial is complete.
    """
    members = choose_members(search.front(), limit)
    if not members:
        raise SearchError(f"The run in {search.folder.path} has no complete trial yet.")
    return [_row(search, comparison, member) for member in members]


def choose_members(front: Sequence[TrialRecord], limit: int | None) -> list[TrialRecord]:
    """Returns at most ``limit`` members, the best-scoring one and others spread evenly.

    Args:
        front: The front, fewest parameters first, so that the last scores best.
        limit: Members at most, at least 1; None for all.
    """
    if limit is None or limit >= len(front):
        return list(front)
    if limit == 1:
        return [front[-1]]
    last = len(front) - 1
    return [front[round(i * last / (limit - 1))] for i in range(limit)]


def _row(search: Search, comparison: Comparison, member: TrialRecord) -> Row:
    assert member.config is not None
    rate = member.learning_rate or comparison.training.plan.learning_rate
    return comparison.row(
        f"front, trial {member.number}",
        member.config,
        [rate],
        trial=member.number,
        save_to=search.folder.adapter_folder(member.number),
    )
