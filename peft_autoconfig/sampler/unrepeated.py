"""What our samplers share: no point is proposed twice, and a search stops when none is left.

Imports `errors`, `space`, `design`, `history` and `lattice`; imported by the samplers.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError, SearchError
from ..space import SearchSpace
from .design import NUM_STARTUP, startup_design
from .history import RESERVED, History, Key, Vector, read_history, score_sign
from .lattice import lattice_of

__all__ = ["UnrepeatedSampler"]

NUM_CANDIDATES = 512
MAX_ENUMERATED = 2048  # a space of at most so many points is searched as a whole


class UnrepeatedSampler(BaseSampler):
    """Proposes points of a `SearchSpace`, each once; abstract.

    For studies with two directions whose objective calls ``space.suggest(trial)`` and returns
    (score, number of parameters). The score may be maximised or minimised; the parameters are
    computed from the space, whatever the objective reports. The first trials follow a design from
    cheap to dear with some published configurations in it; then it is up to the class.

    Args:
        space: The space that the objective suggests from.
        seed: Seed of all draws, at least 0; None draws one.
        n_startup: Trials of the design, at least 1.

    Raises:
        ConfigError: If `seed` or `n_startup` is out of range.
    """

    def __init__(
        self, space: SearchSpace, seed: int | None = None, *, n_startup: int = NUM_STARTUP
    ) -> None:
        if n_startup < 1:
            raise ConfigError(f"expected n_startup of at least 1, got {n_startup}")
        if seed is not None and seed < 0:
            raise ConfigError(f"expected a seed of at least 0 or None, got {seed}")
        self._space = space
        self._lattice = lattice_of(space)
        self._seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
        self._n_startup = n_startup

    @abstractmethod
    def _choose(
        self, history: History, candidates: Vector, generator: np.random.Generator
    ) -> Vector:
        """Returns an unseen point ``d``, once there is a score and the design is through.

        Args:
            history: What is known.
            candidates: ``n x d`` points from all over the space, at least one of them unseen.
            generator: Source of the draws.
        """

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the distributions of the space.

        Raises:
            SearchError: If the study's directions are not two, the second of them minimize.
        """
        score_sign(study)
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of the next point.

        Raises:
            optuna.TrialPruned: If no point is left, inside `Study.optimize`, which then stops.
            SearchError: If no point is left, elsewhere.
        """
        history = self._read(study, trial.number)
        while len(history.seen) < self._space.num_points:
            x = self._next_point(trial.number, history)
            params = self._space.decode_params(x)
            # Processes that ask at the same moment may choose alike. Each announces its choice and
            # then looks again, so at least the last to announce sees the others and gives way.
            study._storage.set_trial_system_attr(trial._trial_id, RESERVED, params)
            history = self._read(study, trial.number)
            if self._key(x) not in history.seen:
                return params
        reason = f"all {self._space.num_points} points of the space are evaluated or on the way"
        if _stop(study):
            raise optuna.TrialPruned(reason)
        raise SearchError(f"expected a point that is new, but {reason}; widen the space")

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns a random value of a parameter that is not of the space."""
        entropy = (self._seed, trial.number, zlib.crc32(param_name.encode()))
        sampler = RandomSampler(int(np.random.default_rng(entropy).integers(2**32)))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Stops `Study.optimize` once no point is left."""
        if trial.number + 1 >= self._space.num_points:
            if len(self._read(study, None).seen) >= self._space.num_points:
                _stop(study)

    def _next_point(self, number: int, history: History) -> Vector:
        """Returns an unseen point, from the startup design or as the class chooses."""
        generator = np.random.default_rng((self._seed, number))
        candidates = self._candidates(history, generator)
        if not history.scores or len(history.evaluated + history.pending) < self._n_startup:
            unseen = self._unseen(
                np.array([*self._design, *generator.permutation(candidates)]), history
            )
            return np.asarray(unseen[0])
        return self._choose(history, candidates, generator)

    def _candidates(self, history: History, generator: np.random.Generator) -> Vector:
        """Returns points ``n x d`` from all over the space, at least one of them unseen."""
        if self._space.num_points > MAX_ENUMERATED:
            drawn = self._space.sample_stratified(NUM_CANDIDATES, generator)
            if len(self._unseen(drawn, history)):
                return drawn
        return self._space.points()

    def _unseen(self, X: Vector, history: History) -> Vector:
        """Returns those of points ``n x d`` that were not handed out."""
        keys = self._lattice.keys(torch.from_numpy(X))
        return X[[key not in history.seen for key in keys]]

    @cached_property
    def _design(self) -> list[Vector]:
        return startup_design(self._space, self._n_startup, self._seed)

    def _key(self, x: Vector) -> Key:
        return self._lattice.keys(torch.as_tensor(x)[None])[0]

    def _read(self, study: Study, asking: int | None) -> History:
        return read_history(study, self._space, self._key, asking=asking)


def _stop(study: Study) -> bool:
    """Returns whether the study runs in `Study.optimize`, which is then told to stop."""
    try:
        study.stop()
    except RuntimeError:
        return False
    return True
