"""A sampler at work: it sees a study as it was read, and what it writes is kept for later.

A proposal may take seconds, which nobody else shall have to wait for. So a sampler is given a study
that is a snapshot: nothing it asks reaches the data base, and of what it sets, only what belongs to
the trial that it draws is handed on.

Imports `snapshot`; imported by `store`.
"""

import copy
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .snapshot import Snapshot

__all__ = ["Desk"]

Result = TypeVar("Result")

_STUDY_ID = 0


class Desk:
    """Where the sampler of a store draws the parameters of trials.

    Args:
        name: Name of the study.
        directions: Which way its objectives point.
        sampler: What proposes.
    """

    def __init__(
        self, name: str, directions: Sequence[StudyDirection], sampler: BaseSampler
    ) -> None:
        self._name, self._directions = name, directions
        self._view = _View(name, directions)
        self._study = optuna.load_study(study_name=name, storage=self._view, sampler=sampler)

    def draw(
        self, snapshot: Snapshot, trial: FrozenTrial, suggest: Callable[[optuna.Trial], object]
    ) -> FrozenTrial:
        """Returns a running trial with the parameters that the sampler proposes for it.

        Args:
            snapshot: What the sampler may know.
            trial: The trial; what it has queued is taken over.
            suggest: Asks a trial for all parameters.

        Raises:
            optuna.TrialPruned: ``suggest`` refuses them; `drawn` has them.
        """
        self._view.show(snapshot, trial)
        suggest(optuna.trial.Trial(self._study, trial._trial_id))
        return self._view.drawn

    @property
    def drawn(self) -> FrozenTrial:
        """The trial of the latest `draw`, as far as it came."""
        return self._view.drawn

    def read(self, snapshot: Snapshot, look: Callable[[optuna.Study], Result]) -> Result:
        """Returns what somebody sees in a study as it was read, who only looks at it."""
        view = _View(self._name, self._directions)
        view.show(snapshot)
        study = optuna.load_study(study_name=self._name, storage=view, sampler=self._study.sampler)
        return look(study)

    def finish(
        self,
        snapshot: Snapshot,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> dict[str, Any]:
        """Tells the sampler that a trial is about to end; returns what it notes of it."""
        self._view.show(snapshot, trial)
        self._study.sampler.after_trial(self._study, trial, state, values)
        return self._view.drawn.system_attrs


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("a sampler draws one trial, and changes no other and no study")


class _View(BaseStorage):
    """One study of a snapshot, with one trial that can be written."""

    def __init__(self, name: str, directions: Sequence[StudyDirection]) -> None:
        self._name = name
        self._directions = list(directions)
        self._notes: dict[str, Any] = {}
        self._snapshot = Snapshot()
        self._drawn_number: int | None = None
        self.drawn: FrozenTrial

    def show(self, snapshot: Snapshot, trial: FrozenTrial | None = None) -> None:
        """Shows a snapshot from now on, with a copy of a trial to be written, if there is one."""
        self._snapshot = snapshot
        if trial is None:
            return
        self._drawn_number = trial.number
        self.drawn = copy.copy(trial)
        for name in ("params", "distributions", "user_attrs", "system_attrs"):
            setattr(self.drawn, name, dict(getattr(trial, name)))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials of the snapshot, and the drawn one as it is by now."""
        here = self._drawn_number
        trials = [t if t.number != here else self.drawn for t in self._snapshot.all()]
        trials = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a trial by its id."""
        if trial_id == self.drawn._trial_id:
            return copy.copy(self.drawn)
        return next(t for t in self._snapshot.all() if t._trial_id == trial_id)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Gives the drawn trial a parameter."""
        value = distribution.to_external_repr(param_value_internal)
        self.drawn.params[param_name] = value
        self.drawn.distributions[param_name] = distribution

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Gives the drawn trial an attribute."""
        self.drawn.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Gives the drawn trial an attribute that is the sampler's."""
        self.drawn.system_attrs[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns what samplers of this process have noted of the study."""
        return dict(self._notes)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Notes something of the study, for samplers of this process."""
        self._notes[key] = value

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns nothing, as no sampler looks there."""
        return {}

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Returns which way the objectives point."""
        return self._directions

    def get_study_id_from_name(self, study_name: str) -> int:
        """Returns the one id there is."""
        return _STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        """Returns the one name there is."""
        return self._name

    create_new_study: Any = _refuse
    delete_study: Any = _refuse
    set_study_user_attr: Any = _refuse
    get_all_studies: Any = _refuse
    create_new_trial: Any = _refuse
    set_trial_state_values: Any = _refuse
    set_trial_intermediate_value: Any = _refuse
