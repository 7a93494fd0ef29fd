"""What an earlier search of another task found, as points of this search's space.

Imports `errors`, `space` and `history`; imported by `transfer` and by `search`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import TrialState

from ..errors import ConfigError
from ..space import SearchSpace
from .history import score_sign

__all__ = ["EarlierRun"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierRun:
    """The evaluations of one earlier search, of another task on the same base model.

    Attributes:
        name: What the run is called in messages.
        points: ``n x d`` vectors of the space that is searched now.
        scores: ``n`` finite scores, higher is better, on any scale.
    """

    name: str
    points: NDArray[np.float64]
    scores: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        name: str,
        evaluations: Iterable[tuple[Mapping[str, Any], float]],
        space: SearchSpace,
        *,
        searched: SearchSpace | None = None,
    ) -> "EarlierRun":
        """Returns a run of evaluations; those that are not in the space are passed over.

        Args:
            name: What the run is called.
            evaluations: Parameters in the space of the run, and scores, higher is better.
            space: The space that is searched now.
            searched: The space of the run; None if it is the same.
        """
        searched = searched or space
        points: list[NDArray[np.float64]] = []
        scores: list[float] = []
        passed = 0
        for params, score in evaluations:
            try:
                # by its configuration, as another space may leave out what varied in the run
                x = space.encode(*searched.decode(searched.encode_params(params)))
            except ConfigError:
                passed += 1
            else:
                points.append(x)
                scores.append(score)
        if passed:
            logger.warning(
                "Of %d evaluations of the earlier run %s, %d are not in this space and are passed "
                "over.",
                passed + len(points),
                name,
                passed,
            )
        found = np.array(points, dtype=float).reshape(-1, len(space.dimensions))
        return cls(name, found, np.array(scores, dtype=float))

    @classmethod
    def of_study(
        cls, study: Study, space: SearchSpace, *, searched: SearchSpace | None = None
    ) -> "EarlierRun":
        """Returns what a study found: its trials that are complete and in the space.

        Args:
            study: A study of two objectives, the score and the parameters to be minimised.
            space: The space that is searched now.
            searched: The space of the study; None if it is the same.

        Raises:
            SearchError: If the study's directions are not two, the second of them minimize.
        """
        sign = score_sign(study)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        evaluations = [
            (trial.params, sign * trial.values[0])
            for trial in complete
            if np.isfinite(trial.values[0])
        ]
        return cls.of(study.study_name, evaluations, space, searched=searched)
