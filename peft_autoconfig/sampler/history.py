"""What a study knows, read as points of the space; which way an objective points is decided here.

Whoever reads a `History` sees scores to be maximised, also where the study minimises them. Imports
`errors` and `space`; imported by the samplers and `believed`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError, SearchError
from ..space import SearchSpace

__all__ = ["RESERVED", "History", "Key", "Vector", "read_history", "score_sign"]

Vector = NDArray[np.float64]
Key = tuple[int, ...]

RESERVED = "peft_autoconfig:reserved"  # system attribute of a trial whose parameters are on the way
# User attribute of a trial that was stopped on its way: the score that it was thought to end at.
# The model learns nearly as much from it as from the whole training; the worst score in its place
# misleads it, and so does leaving the trial out (benchmarks/fidelity).
FORECAST = "forecast"


@dataclass
class History:
    """What a study knows, as points of the space; scores are turned to be maximised.

    Attributes:
        evaluated: Points with a score.
        scores: Their scores. A pruned trial has the score that was forecast for it, or else the
            worst of all that are complete.
        numbers: Numbers of their trials.
        pending: Points whose score is still to come.
        seen: Keys of all points that were ever handed out, whatever became of them.
    """

    evaluated: list[Vector] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    pending: list[Vector] = field(default_factory=list)
    seen: set[Key] = field(default_factory=set)


def read_history(
    study: Study, space: SearchSpace, key: Callable[[Vector], Key], *, asking: int | None = None
) -> History:
    """Returns what a study knows of a space.

    Args:
        study: The study; trials without a point of the space are passed over.
        space: The space.
        key: What tells points apart.
        asking: Number of the trial that asks, which is left out.

    Raises:
        SearchError: If the study's directions are not two, the second of them minimize.
    """
    sign = score_sign(study)
    history = History()
    pruned: list[tuple[Vector, FrozenTrial]] = []
    for trial in study.get_trials(deepcopy=False):
        x = _point_of(trial, space)
        if x is None or trial.number == asking:
            continue
        history.seen.add(key(x))
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            history.pending.append(x)
        elif trial.state == TrialState.PRUNED:
            pruned.append((x, trial))
        elif trial.state == TrialState.COMPLETE and np.isfinite(trial.values[0]):
            history.evaluated.append(x)
            history.scores.append(sign * trial.values[0])
            history.numbers.append(trial.number)
    if history.scores:
        worst = min(history.scores)
        for x, trial in pruned:
            forecast = trial.user_attrs.get(FORECAST)
            history.evaluated.append(x)
            history.scores.append(worst if forecast is None else sign * forecast)
            history.numbers.append(trial.number)
    return history


def score_sign(study: Study) -> float:
    """Returns the factor that turns the study's score into one to be maximised: 1 or -1.

    Raises:
        SearchError: If the study's directions are not two, the second of them minimize.
    """
    directions = study.directions
    if len(directions) != 2 or directions[1] != StudyDirection.MINIMIZE:
        raise SearchError(
            "expected a study of two objectives, the score and the parameters to be minimised, got "
            f"directions {[d.name.lower() for d in directions]}; make it with "
            'optuna.create_study(directions=["maximize", "minimize"])'
        )
    return 1.0 if directions[0] == StudyDirection.MAXIMIZE else -1.0


def _point_of(trial: FrozenTrial, space: SearchSpace) -> Vector | None:
    """Returns the point of a trial, or None if it has none (yet) that lies in the space."""
    attributes: dict[str, Any] = trial.system_attrs
    is_open = trial.state in (TrialState.RUNNING, TrialState.WAITING)
    announced = attributes.get(RESERVED) or attributes.get("fixed_params") if is_open else None
    for params in (trial.params, announced):
        try:
            return space.encode_params(params or {})
        except ConfigError:
            continue
    return None
