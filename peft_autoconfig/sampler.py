"""The bridge from Optuna to Bayesian optimisation: reads trials, asks `bayes`, answers parameters.

`BayesianSampler` keeps nothing between trials: what it proposes follows from the study, the seed
and the trial's number. So a search that was killed goes on as if nothing had happened, and any
number of processes may share one study. Which way an objective points is decided here and nowhere
else: `bayes` sees scores to be maximised and log10 parameters to be minimised.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from .bayes.lattice import Lattice
from .bayes.proposal import Knowledge, propose
from .errors import ConfigError, SearchError
from .space import SearchSpace

__all__ = ["BayesianSampler", "startup_design"]

Vector = NDArray[np.float64]
Key = tuple[int, ...]

RESERVED = "peft_autoconfig:reserved"  # system attribute of a trial whose parameters are on the way
NUM_STARTUP = 12
NUM_CANDIDATES = 512
MAX_ENUMERATED = 2048  # a space of at most so many points is searched as a whole


class BayesianSampler(BaseSampler):
    """Proposes configurations by multi-objective Bayesian optimisation over a `SearchSpace`.

    For studies with two directions whose objective calls ``space.suggest(trial)`` and returns
    (score, number of parameters). The score may be maximised or minimised; the parameters are
    computed from the space, whatever the objective reports. The first trials follow a design from
    cheap to dear with some published configurations in it; then a Gaussian process of the score and
    the expected gain of hypervolume choose. No point is proposed twice, whatever became of it. A
    pruned trial counts as one with the worst score so far, a failed one as none.

    Args:
        space: The space that the objective suggests from.
        seed: Seed of all draws, at least 0; None draws one.
        n_startup: Trials before the model takes over, at least 1. On synthetic searches 10, 15 and
            20 came to the same after 40 trials; fewer are ahead until then (benchmarks/optimiser).

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
        self._lattice = _lattice(space)
        self._seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
        self._n_startup = n_startup

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the distributions of the space.

        Raises:
            SearchError: If the study's directions are not two, the second of them minimize.
        """
        _score_sign(study)
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

    def _next_point(self, number: int, history: _History) -> Vector:
        """Returns an unseen point, from the startup design or from the model."""
        generator = np.random.default_rng((self._seed, number))
        candidates = self._candidates(generator)
        if not history.scores or len(history.evaluated + history.pending) < self._n_startup:
            for x in (*self._design, *generator.permutation(candidates)):
                if self._key(x) not in history.seen:
                    return np.asarray(x)
        known = Knowledge(
            train_X=_tensor(history.evaluated, self._space),
            train_Y=torch.tensor(history.scores, dtype=torch.float64),
            X_pending=_tensor(history.pending, self._space),
            seen=history.seen,
        )
        draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
        starts = _tensor([*candidates], self._space)
        return np.asarray(propose(self._lattice, known, starts, draws).numpy())

    def _candidates(self, generator: np.random.Generator) -> Vector:
        """Returns points ``n x d`` from all over the space: all of them when it is small."""
        if self._space.num_points <= MAX_ENUMERATED:
            return self._space.points()
        return self._space.sample_stratified(NUM_CANDIDATES, generator)

    @cached_property
    def _design(self) -> list[Vector]:
        return startup_design(self._space, self._n_startup, self._seed)

    def _key(self, x: Vector) -> Key:
        return self._lattice.keys(torch.as_tensor(x)[None])[0]

    def _read(self, study: Study, asking: int | None) -> _History:
        """Returns what a study knows, but for the trial that asks."""
        sign = _score_sign(study)
        history = _History()
        pruned: list[Vector] = []
        for trial in study.get_trials(deepcopy=False):
            x = self._point_of(trial)
            if x is None or trial.number == asking:
                continue
            history.seen.add(self._key(x))
            if trial.state in (TrialState.RUNNING, TrialState.WAITING):
                history.pending.append(x)
            elif trial.state == TrialState.PRUNED:
                pruned.append(x)
            elif trial.state == TrialState.COMPLETE and np.isfinite(trial.values[0]):
                history.evaluated.append(x)
                history.scores.append(sign * trial.values[0])
        if history.scores:
            history.scores.extend([min(history.scores)] * len(pruned))
            history.evaluated.extend(pruned)
        return history

    def _point_of(self, trial: FrozenTrial) -> Vector | None:
        """Returns the point of a trial, or None if it has none (yet) that lies in the space."""
        attributes = trial.system_attrs
        is_open = trial.state in (TrialState.RUNNING, TrialState.WAITING)
        announced = attributes.get(RESERVED) or attributes.get("fixed_params") if is_open else None
        for params in (trial.params, announced):
            try:
                return self._space.encode_params(params or {})
            except ConfigError:
                continue
        return None


@dataclass
class _History:
    """What a study knows, as points of the space; scores are turned to be maximised."""

    evaluated: list[Vector] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    pending: list[Vector] = field(default_factory=list)
    seen: set[Key] = field(default_factory=set)


def startup_design(space: SearchSpace, n: int, seed: int) -> list[Vector]:
    """Returns `n` points to start with, in random order: a few published ones, then cheap to dear.

    Each of `n` strata of log parameters gives one point, but for up to a twelfth of them for each
    kind of size, which make way for the published defaults of the single methods, scaled to the
    space. Learning rates are dealt out evenly. Points may repeat in a space that is small.

    Args:
        space: The space.
        n: Number of points, at least 1.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    published = _published(space)[: n * len(space.size_names) // 12]
    drawn = space.sample_stratified(64 * n, generator)
    strata = np.array_split(
        np.argsort(space.count_params(drawn), kind="stable"), n - len(published)
    )
    design = [*published, *(drawn[generator.choice(stratum)] for stratum in strata)]
    if space.learning_rates is not None:
        rates = len(space.learning_rates)
        for x, rate in zip(design, generator.permutation(n) % rates, strict=True):
            x[-1] = rate / max(rates - 1, 1)
    return [design[i] for i in generator.permutation(n)]


def _published(space: SearchSpace) -> list[Vector]:
    """Returns the single-method defaults in all layers, as far as the space holds their like.

    A serial bottleneck of 1/16 of the width (Pfeiffer et al. 2021), a parallel one of 1/2 (He et
    al. 2022), 10 prefix positions (Li and Liang 2021) and low-rank updates of rank 8 (Hu et al.
    2022), each at the nearest size of the space.
    """
    wanted = (space.hidden_size / 16, space.hidden_size / 2, 10, 8)
    names = space.size_names
    points = []
    for name, size in zip(names, wanted, strict=False):  # the last one may not vary
        present = [choice for choice in space.dimensions[name] if choice > 0]
        if not present or any(0 not in space.dimensions[other] for other in {*names} - {name}):
            continue
        nearest = min(present, key=lambda choice: abs(np.log(choice / size)))
        params: dict[str, Any] = {n: choices[0] for n, choices in space.dimensions.items()}
        params.update({f"layer_{i}": 1 for i in range(space.num_layers)} | {name: nearest})
        with suppress(ConfigError):  # beyond the budget
            points.append(space.encode_params(params))
    return points


def _lattice(space: SearchSpace) -> Lattice:
    """Returns the space as `bayes` sees it; costs are log10 of the parameters.

    Beside a point's levels the model sees its cost, the share of active layers, and whether each
    module is present (on the ladder of levels, absent is as near to size 1 as size 1 to 3). On
    synthetic searches these raise the accuracy on held-out points, most at 15 to 40 evaluations;
    that they speed up the search could not be shown.
    """
    sizes = len(space.size_names)
    layers = range(sizes, sizes + space.num_layers)
    cheapest, dearest = np.log10(space.params_range)
    most = space.max_params or np.inf

    def cost(X: Tensor) -> Tensor:
        counts = space.count_params(X.numpy())
        allowed = (counts > 0) & (counts <= most)
        return torch.from_numpy(np.where(allowed, np.log10(np.maximum(counts, 1)), np.inf))

    def inputs(X: Tensor) -> Tensor:
        scaled = (cost(X) - cheapest) / max(dearest - cheapest, 1e-9)
        share = X[:, layers.start : layers.stop].mean(dim=1)
        present = X[:, :sizes] > 0
        return torch.cat([X, scaled[:, None], share[:, None], present.to(X)], dim=1)

    levels = tuple(len(choices) for choices in space.dimensions.values())
    return Lattice(levels, cost, inputs, max_cost=float(dearest), interchangeable=layers)


def _score_sign(study: Study) -> float:
    """Returns the factor that turns the study's score into one to be maximised: 1 or -1."""
    directions = study.directions
    if len(directions) != 2 or directions[1] != StudyDirection.MINIMIZE:
        raise SearchError(
            "expected a study of two objectives, the score and the parameters to be minimised, got "
            f"directions {[d.name.lower() for d in directions]}; make it with "
            'optuna.create_study(directions=["maximize", "minimize"])'
        )
    return 1.0 if directions[0] == StudyDirection.MAXIMIZE else -1.0


def _stop(study: Study) -> bool:
    """Returns whether the study runs in `Study.optimize`, which is then told to stop."""
    try:
        study.stop()
    except RuntimeError:
        return False
    return True


def _tensor(points: list[Vector], space: SearchSpace) -> Tensor:
    """Returns points as a tensor ``n x d``, also when there is none."""
    return torch.from_numpy(np.array(points).reshape(-1, len(space.dimensions)))
