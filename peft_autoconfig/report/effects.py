"""What matters: how far each choice moves the score, as the search's own model sees it.

A Gaussian process is fitted on one input per choice. At every complete trial each choice is set to
each of its other levels, all else kept; joint draws of the score there say how far it moves, and
how sure that is. Few trials say little, and a model may be sure of what is not so. Hence three
checks: the accuracy on held-out trials; made-up choices, drawn at random, whose effect is chance;
and the importance by an unrelated model (Optuna's fANOVA).

Imports `bayes`, `search` and `space`; imported by `report`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from torch import Tensor

from ..bayes.surrogate import Surrogate, fit_surrogate
from ..search.trial import TrialRecord
from ..space import SearchSpace

__all__ = ["FEWEST_TRIALS", "Choice", "Effects", "Interval", "choice_effects"]

FEWEST_TRIALS = 10  # below that, held-out accuracy cannot be told
NUM_FOLDS = 10
NUM_MADE_UP = 3
NUM_DRAWS = 64
MAX_POINTS = 1500  # of the joint draws, whose cost grows with the cube
MAX_TRIALS = 400  # that the models are fitted on, for the same reason
NUM_TREES = 24  # of fANOVA; 64, its default, take longer than all else together
INTERVAL = (0.1, 0.5, 0.9)  # an 80 % interval round the median


@dataclass(frozen=True)
class Interval:
    """A median and the 80 % interval round it, in units of the score."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Choice:
    """What one choice of the space does to the score.

    Attributes:
        name: Its name in `SearchSpace.dimensions`.
        levels: Its values that are allowed somewhere, ascending.
        move: Mean distance that the score moves when only this choice is changed.
        curve: Mean score of the trials with this choice set to each level.
        relevance: Inverse length scale of the model, higher is more; 0 is no influence.
        fanova: Share of the variance by fANOVA, [0, 1]; None if it could not be told.
    """

    name: str
    levels: tuple[float, ...]
    move: Interval
    curve: tuple[Interval, ...]
    relevance: float
    fanova: float | None


@dataclass(frozen=True)
class Effects:
    """What every choice does, and how far to trust it.

    Attributes:
        choices: The choices that have more than one level, the strongest first.
        num_trials: Complete trials behind it, at most `MAX_TRIALS`.
        held_out: Share of the variance of held-out trials that the model explains: 1 is all, 0
            or less is none.
        chance: The largest move of a made-up choice, which a real one should exceed.
        noise: Standard deviation of the noise that the model infers, in units of the score.
    """

    choices: tuple[Choice, ...]
    num_trials: int
    held_out: float
    chance: float
    noise: float


def choice_effects(
    space: SearchSpace, records: Sequence[TrialRecord], *, seed: int = 0
) -> Effects | None:
    """Returns what the choices of a space do to the score.

    None of fewer than `FEWEST_TRIALS`, or if all scores are the same: nothing can be told then.

    Args:
        space: The space.
        records: Complete trials with their configurations.
        seed: Seed of folds and draws.
    """
    if len(records) < FEWEST_TRIALS or len({record.score for record in records}) == 1:
        return None
    records = [records[i] for i in _evenly(len(records), MAX_TRIALS)]
    X = np.array([space.encode_params(_params(space, record)) for record in records])
    Y = torch.tensor([record.score for record in records], dtype=torch.float64)
    made_up = np.random.default_rng(seed).integers(2, size=(len(X), NUM_MADE_UP)).astype(float)
    inputs = np.hstack([X, made_up])
    surrogate = fit_surrogate(torch.from_numpy(inputs), Y)
    lengths = surrogate.model.length_scales.tolist()
    shares = _fanova(space, records, seed)
    moves = _moves(space, inputs, surrogate, seed)
    choices = [
        Choice(name, *moves[i], relevance=1 / lengths[i], fanova=shares.get(name))
        for i, name in enumerate(space.dimensions)
        if i in moves
    ]
    choices.sort(key=lambda choice: -choice.move.middle)
    noise = surrogate.model.noise**0.5 * surrogate.scale
    return Effects(
        choices=tuple(choices),
        num_trials=len(records),
        held_out=_held_out(torch.from_numpy(X), Y, seed),
        chance=max(moves[X.shape[1] + i][1].middle for i in range(NUM_MADE_UP)),
        noise=noise,
    )


def _params(space: SearchSpace, record: TrialRecord) -> dict[str, float]:
    assert record.config is not None
    return space.params(record.config, record.learning_rate)


Moved = tuple[tuple[float, ...], Interval, tuple[Interval, ...]]


def _moves(
    space: SearchSpace, inputs: NDArray[np.float64], surrogate: Surrogate, seed: int
) -> dict[int, Moved]:
    """Returns levels, move and curve of each dimension that varies, made-up ones included.

    They come from joint draws at all trials, each with one choice changed.
    """
    levels = [*space.dimensions.values(), *[(0.0, 1.0)] * NUM_MADE_UP]
    changes = [(i, k) for i, values in enumerate(levels) for k in range(len(values))]
    changes = [(i, k) for i, k in changes if len(levels[i]) > 1]
    base = inputs[_evenly(len(inputs), max(4, MAX_POINTS // (len(changes) + 1)))]
    blocks = [base, *(_set(base, i, k / (len(levels[i]) - 1)) for i, k in changes)]
    points = np.concatenate(blocks)
    counts = space.count_params(points[:, : len(space.dimensions)])
    allowed = torch.from_numpy((counts > 0) & (counts <= (space.max_params or np.inf)))
    generator = torch.Generator().manual_seed(seed)
    draws = surrogate.fantasize(torch.from_numpy(points), NUM_DRAWS, generator).values
    values = (draws * surrogate.scale + surrogate.location).reshape(NUM_DRAWS, len(blocks), -1)
    allowed = allowed.reshape(len(blocks), -1)
    moved: dict[int, Moved] = {}
    for i in sorted({i for i, _ in changes}):
        rows = [b for b, (j, _) in enumerate(changes, start=1) if j == i and allowed[b].any()]
        # a level that a trial has already is no change
        same = np.array([np.isclose(blocks[b], base).all(axis=1) for b in rows])
        other = allowed[rows] & ~torch.from_numpy(same)
        distance = (values[:, rows] - values[:, :1]).abs()
        moved[i] = (
            tuple(float(levels[i][changes[b - 1][1]]) for b in rows),
            _interval(_masked_mean(distance.flatten(1), other.flatten())),
            tuple(_interval(_masked_mean(values[:, b], allowed[b])) for b in rows),
        )
    return moved


def _set(points: NDArray[np.float64], dimension: int, value: float) -> NDArray[np.float64]:
    changed = points.copy()
    changed[:, dimension] = value
    return changed


def _evenly(number: int, most: int) -> list[int]:
    """Returns the indices of at most ``most`` of a number of things, evenly spaced."""
    return sorted({round(i) for i in np.linspace(0, number - 1, min(number, most))})


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns means ``s`` of ``s x n`` where a mask ``n`` holds; 0 if it never does."""
    return (values * mask).sum(dim=1) / mask.sum().clamp_min(1)


def _interval(draws: Tensor) -> Interval:
    return Interval(*torch.quantile(draws, torch.tensor(INTERVAL, dtype=draws.dtype)).tolist())


def _held_out(X: Tensor, Y: Tensor, seed: int) -> float:
    """Returns the share of variance that models fitted without a fold explain in it."""
    order = np.random.default_rng(seed).permutation(len(Y))
    wrong = 0.0
    for fold in np.array_split(order, NUM_FOLDS):
        inside = torch.ones(len(Y), dtype=torch.bool)
        inside[torch.from_numpy(fold)] = False
        mean, _ = fit_surrogate(X[inside], Y[inside]).posterior(X[~inside])
        wrong += float((mean - Y[~inside]).square().sum())
    return 1 - wrong / float((Y - Y.mean()).square().sum())


def _fanova(space: SearchSpace, records: Sequence[TrialRecord], seed: int) -> dict[str, float]:
    """Returns each choice's share of the variance by Optuna's random forest, if it has one."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(verbosity)
    for record in records:
        study.add_trial(
            optuna.trial.create_trial(
                params=_params(space, record),
                distributions=space.distributions,
                value=record.score,
            )
        )
    evaluator = FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # no choice varied
        return {}
