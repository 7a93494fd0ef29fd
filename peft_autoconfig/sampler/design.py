"""The points that a search starts with: from cheap to dear, and a few published ones.

Imports `errors` and `space`; imported by `unrepeated`.
"""

from contextlib import suppress
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
    """Returns `n` points to start with, in random order: a few published ones, then cheap to dear.

    Each of `n` strata of log parameters gives one point, but for up to a twelfth of them for each
    kind of size, which make way for the published defaults of the single methods, scaled to the
    space. Each learning rate is had by as many points, the highest by the cheapest: the more
    parameters, the lower the rate at which they learn best (benchmarks/rates). Points may repeat in
    a space that is small.

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
