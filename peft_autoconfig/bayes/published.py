"""What AutoPEFT was published with: a fully Bayesian model of the score, and NEHVI by walks.

Beside `proposal`, which is ours. Taken over from the release are the SAAS model of normal scores,
how it is sampled, the noisy expected gain of hypervolume averaged over its samples, and how that is
optimised: from mutated members of the front by short random walks. Its defects are not: what is
returned is what the search found, no point comes twice, the reference is taken from the data, and
the cost is known rather than modelled, which also gives the expectation in closed form.

Imports `acquisition`, `lattice`, `pareto`, `proposal`, `saas` and `surrogate`.
"""

import math

import torch
from torch import Tensor

from .acquisition import LogNoisyEHVI
from .lattice import Lattice, distinct
from .pareto import is_non_dominated
from .proposal import PLAIN_FLOOR, Knowledge
from .saas import Inference, fit_saas
from .surrogate import Surrogate

__all__ = ["fit_published", "propose_published"]

NUM_SAMPLES = 4  # draws of the front under each of (by default) 16 models
NUM_STARTS = 10
EVALUATIONS = 200  # of the acquisition function, for each start
WALK = 15  # mutations of a walk


def fit_published(
    train_X: Tensor, train_Y: Tensor, *, inference: Inference, seed: int
) -> list[Surrogate]:
    """Returns models of the normal scores, one for each sample of the hyperparameters.

    Args:
        train_X: ``n x d`` levels.
        train_Y: ``n`` finite scores; only their order matters.
        inference: How long NUTS samples.
        seed: Seed of NUTS.

    Raises:
        ConfigError: NumPyro and JAX are not installed.
    """
    processes = fit_saas(train_X, normal_scores(train_Y), inference=inference, seed=seed)
    return [Surrogate(process, location=0.0, scale=1.0) for process in processes]


def normal_scores(Y: Tensor) -> Tensor:
    """Returns for each of ``n`` values the normal quantile of its rank; ties share theirs."""
    below = (Y < Y[:, None]).sum(dim=1)
    equal = (Y == Y[:, None]).sum(dim=1)
    quantiles: Tensor = torch.special.ndtri((below + 0.5 * equal).to(Y.dtype) / len(Y))
    return quantiles


def propose_published(
    lattice: Lattice, known: Knowledge, surrogates: list[Surrogate], generator: torch.Generator
) -> Tensor | None:
    """Returns the unseen point ``d`` that the walks found to be worth most; None if they saw none.

    Args:
        lattice: The points that may be evaluated.
        known: What is known so far.
        surrogates: Models of the score (`fit_published`).
        generator: Source of the draws.
    """
    baseline = distinct(torch.cat([known.train_X, known.X_pending]))
    costs = lattice.cost(baseline)
    means = torch.stack([surrogate.posterior(baseline)[0] for surrogate in surrogates])
    floor = float(means.mean(dim=0).quantile(PLAIN_FLOOR))
    acquisitions = [
        LogNoisyEHVI(
            surrogate.fantasize(baseline, NUM_SAMPLES, generator),
            costs,
            (surrogate.standardize(floor), lattice.max_cost),
        )
        for surrogate in surrogates
    ]

    def worth(X: Tensor) -> Tensor:
        at = lattice.cost(X)
        values = torch.stack([acquisition(X, at) for acquisition in acquisitions])
        seen = torch.tensor([key in known.seen for key in lattice.keys(X)])
        return values.logsumexp(dim=0).masked_fill(seen, -math.inf)

    front = baseline[is_non_dominated(means.mean(dim=0), costs)]
    drawn = torch.randint(len(front), (NUM_STARTS,), generator=generator)
    points = mutated(lattice, front[drawn], generator)
    values = worth(points)
    for _ in range(EVALUATIONS // WALK):
        walk = [points]
        for _ in range(WALK):
            walk.append(mutated(lattice, walk[-1], generator))
        steps = torch.stack(walk[1:], dim=1)  # starts x WALK x d
        gains = worth(steps.flatten(end_dim=1)).view(NUM_STARTS, WALK)
        best, where = gains.max(dim=1)
        better = best > values
        points = torch.where(better[:, None], steps[torch.arange(NUM_STARTS), where], points)
        values = torch.where(better, best, values)
    return points[values.argmax()] if values.max() > -math.inf else None


def mutated(lattice: Lattice, X: Tensor, generator: torch.Generator) -> Tensor:
    """Returns points ``n x d``, each with one dimension at another level.

    A change that is not allowed is drawn again; after some draws the point stays as it is.
    """
    levels = torch.tensor(lattice.num_levels)
    free = (levels > 1).nonzero().flatten()
    if not len(free):
        return X
    result, left = X.clone(), torch.ones(len(X), dtype=torch.bool)
    rows = torch.arange(len(X))
    for _ in range(20):
        moved = X.clone()
        dimension = free[torch.randint(len(free), (len(X),), generator=generator)]
        count = levels[dimension]
        now = (X[rows, dimension] * (count - 1)).round().long()
        shift = 1 + (torch.rand(len(X), generator=generator) * (count - 1)).long()
        moved[rows, dimension] = ((now + shift) % count).to(X.dtype) / (count - 1)
        take = left & lattice.cost(moved).isfinite()
        result[take] = moved[take]
        left &= ~take
    return result
