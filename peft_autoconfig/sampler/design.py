"""The points that a search starts with: published ones, the least of each part, cheap to dear.

Imports `errors` and `space`; imported by `unrepeated`.
"""

from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..space import SearchSpace

__all__ = ["NUM_STARTUP", "startup_design"]

Vector = NDArray[np.float64]

# 10, 15 and 20 came to the same after 40 trials; fewer are ahead until then (benchmarks/LOG.md)
NUM_STARTUP = 12


def startup_design(space: SearchSpace, n: int, seed: int) -> list[Vector]:
    """Returns `n` points to start with, in random order.

    Up to a twelfth of them for each kind of size are published defaults of the single methods, as
    many are each part by itself at its least size in a quarter of the layers, and of the rest each
    of as many strata of log parameters gives one point. Drawn points join parts, and on real tasks
    a part that fails hides what another can do; the fronts found there begin with single parts
    (benchmarks/LOG.md). Each learning rate is had by as many points, the highest by the cheapest:
    the more parameters, the lower the rate at which they learn best (benchmarks/rates). Points may
    repeat in a space that is small.

    Args:
        space: The space.
        n: Number of points, at least 1.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    of_each = n * len(space.size_names) // 12
    design = [*_published(space)[:of_each], *_least(space, generator)[:of_each]]
    drawn = space.sample_stratified(64 * n, generator)
    strata = np.array_split(np.argsort(space.count_params(drawn), kind="stable"), n - len(design))
    design += [drawn[generator.choice(stratum)] for stratum in strata]
    if space.learning_rates is not None:
        rates = len(space.learning_rates)
        design.sort(key=lambda x: float(space.count_params(x[None])[0]))
        for i, x in enumerate(design):
            x[-1] = (rates - 1 - i * rates // n) / max(rates - 1, 1)
    return [design[i] for i in generator.permutation(n)]


def _published(space: SearchSpace) -> list[Vector]:
    """Returns the single-method defaults in all layers, as far as the space holds their like.

    A serial bottleneck of 1/16 of the width (Pfeiffer et al. 2021), a parallel one of 1/2 (He et
    al. 2022), 10 prefix positions (Li and Liang 2021) and low-rank updates of rank 8 (Hu et al.
    2022), each at the nearest size of the space.
    """
    wanted = (space.hidden_size / 16, space.hidden_size / 2, 10, 8)
    layers = range(space.num_layers)
    points = []
    for name, size in zip(space.size_names, wanted, strict=False):  # the last one may not vary
        present = _present(space, name)
        if present:
            nearest = min(present, key=lambda choice: abs(np.log(choice / size)))
            points += _alone(space, name, nearest, layers)
    return points


def _least(space: SearchSpace, generator: np.random.Generator) -> list[Vector]:
    """Returns each part by itself at its least size, each in a quarter of the layers of its own.

    The last part comes first, so that a short design has other parts here than published ones.
    """
    count = max(space.num_layers // 4, 1)
    points = []
    for name in reversed(space.size_names):
        layers = {*generator.permutation(space.num_layers)[:count].tolist()}
        present = _present(space, name)
        if present:
            points += _alone(space, name, present[0], layers)
    return points


def _present(space: SearchSpace, name: str) -> list[float]:
    """Returns the sizes of a part that may stand alone, ascending; none if it may not."""
    others = {*space.size_names} - {name}
    if any(0 not in space.dimensions[other] for other in others):
        return []
    return sorted(choice for choice in space.dimensions[name] if choice > 0)


def _alone(space: SearchSpace, name: str, size: float, layers: Container[int]) -> list[Vector]:
    """Returns the point of one part in some layers; none where the space has no such point."""
    params: dict[str, Any] = {n: choices[0] for n, choices in space.dimensions.items()}
    params |= {n: 0 for n in space.size_names if n != name} | {name: size}
    params |= {f"layer_{i}": int(i in layers) for i in range(space.num_layers)}
    try:
        return [space.encode_params(params)]
    except ConfigError:  # beyond the budget
        return []
