"""All trials of a study as they were last read, found by number, by state and by parameters.

It grows as it is read further, so that finding a trial, or its twin, costs the same among ten
trials and among ten thousand.

Imports nothing of ours; imported by `rows`, `draw` and `store`.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

__all__ = ["Snapshot", "params_of"]


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the parameters of a trial, also of one that waits or was just taken up."""
    params: dict[str, Any] = trial.user_attrs.get("params") or trial.params
    return params


class Snapshot:
    """The trials of one study; none of them may be changed, only `put` anew."""

    def __init__(self) -> None:
        self._by_number: dict[int, FrozenTrial] = {}
        self._by_state: dict[TrialState, set[int]] = defaultdict(set)
        self._by_params: dict[Hashable, set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> FrozenTrial | None:
        """Returns a trial, None if there is none of that number."""
        return self._by_number.get(number)

    def put(self, trial: FrozenTrial) -> None:
        """Adds a trial, or puts it in place of the older one of its number."""
        older = self._by_number.get(trial.number)
        if older is not None:
            self._by_state[older.state].discard(trial.number)
            self._by_params[_key(params_of(older))].discard(trial.number)
        self._by_number[trial.number] = trial
        self._by_state[trial.state].add(trial.number)
        self._by_params[_key(params_of(trial))].add(trial.number)

    def all(self) -> list[FrozenTrial]:
        """Returns all trials by number."""
        return list(self._by_number.values())

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials in one of some states by number."""
        numbers = sorted(number for state in states for number in list(self._by_state[state]))
        return [self._by_number[number] for number in numbers]

    def beyond(self, seen: set[int], state: TrialState) -> list[FrozenTrial]:
        """Returns the trials in a state whose numbers are not among some that were seen."""
        return [self._by_number[number] for number in sorted(self._by_state[state] - seen)]

    def count(self, *states: TrialState) -> int:
        """Returns how many trials are in one of some states."""
        return sum(len(self._by_state[state]) for state in states)

    def num_configurations(self) -> int:
        """Returns how many trials have parameters."""
        return len(self) - len(self._by_params[_key({})])

    def twin(
        self, params: Mapping[str, Any], states: Sequence[TrialState], other_than: int = -1
    ) -> int | None:
        """Returns the number of the first other trial with the same parameters in some states."""
        numbers = self._by_params.get(_key(params), set()) - {other_than}
        return min((n for n in numbers if self._by_number[n].state in states), default=None)


def _key(params: Mapping[str, Any]) -> Hashable:
    """Returns what is equal for equal parameters."""
    return frozenset(params.items())
