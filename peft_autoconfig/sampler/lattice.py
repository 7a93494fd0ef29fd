"""A search space as `bayes` sees it: levels, exact costs, and what a model of the score sees.

Imports `bayes`, `space` and `history`; imported by the samplers and `believed`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bayes.lattice import Lattice
from ..bayes.proposal import Knowledge
from ..bayes.trend import Layout
from ..space import SearchSpace
from .history import History

__all__ = ["knowledge_of", "lattice_of", "tensor_of"]


def lattice_of(space: SearchSpace) -> Lattice:
    """Returns the space as `bayes` sees it; costs are log10 of the parameters.

    Sizes are their places among those of a module, 0 where it is absent. Beside a point's levels
    the model sees its cost, the share of active layers, and whether each module is present (on the
    ladder of sizes, absent is as near to size 1 as size 1 to 3).
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
        ladder = (X[:, :sizes] * (numbers - 1) + smallest) / (numbers - 1 + smallest).clamp_min(1)
        present = (ladder > 0).to(X)
        rest = X[:, sizes:]
        return torch.cat([ladder, rest, scaled[:, None], share[:, None], present], dim=1)

    levels = tuple(len(choices) for choices in space.dimensions.values())
    choices = [space.dimensions[name] for name in space.size_names]
    numbers = torch.tensor([len(of_module) for of_module in choices])
    smallest = torch.tensor([int(min(of_module) > 0) for of_module in choices])
    return Lattice(
        levels,
        cost,
        inputs,
        max_cost=float(dearest),
        interchangeable=layers,
        layout=Layout(
            sizes=range(sizes),
            layers=layers,
            cost=len(levels),
            rate=None if space.learning_rates is None else layers.stop,
        ),
    )


def tensor_of(points: list[NDArray[np.float64]], space: SearchSpace) -> Tensor:
    """Returns points as a tensor ``n x d``, also when there is none."""
    return torch.from_numpy(np.array(points).reshape(-1, len(space.dimensions)))


def knowledge_of(history: History, space: SearchSpace) -> Knowledge:
    """Returns what a proposal may know of a history: points, scores, and what is under way."""
    return Knowledge(
        train_X=tensor_of(history.evaluated, space),
        train_Y=torch.tensor(history.scores, dtype=torch.float64),
        X_pending=tensor_of(history.pending, space),
        seen=history.seen,
    )
