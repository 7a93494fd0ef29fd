"""The grid of size combinations and layer masks behind a search space: exact counts and draws.

Knows numbers only: how many parameters each size costs in one layer, how many layers there are and
what the budget is. Configurations are *levels* here: for each module the place of its size among
its choices, then one 0 or 1 per layer. Imports `errors`; imported by `space`.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError

__all__ = ["SizeGrid", "nearest_levels", "scale_levels"]

MAX_COMBINATIONS = 1_000_000  # the table of combinations is held in memory


@dataclass(frozen=True)
class SizeGrid:
    """All combinations of one size per module, under one layer mask and one budget.

    Attributes:
        layer_params: For each of ``m`` modules the parameters that each of its sizes costs in one
            layer; 0 where the module is absent.
        num_layers: Number of bits in the mask, ``L``.
        max_params: Largest number of parameters allowed; None for no limit.
        num_free: Choices of a last dimension that costs nothing, such as a learning rate; 0 if
            there is none. `size` and `sample` leave it out.

    Raises:
        ConfigError: If no valid configuration is left, or the table would be too large.
    """

    layer_params: tuple[tuple[int, ...], ...]
    num_layers: int
    max_params: int | None = None
    num_free: int = 0

    def __post_init__(self) -> None:
        combinations = math.prod(self.shape)
        if combinations > MAX_COMBINATIONS:
            raise ConfigError(
                f"expected at most {MAX_COMBINATIONS} combinations of sizes, got {combinations}; "
                "thin the lists (a few sizes, each twice the last, cover a wide range)"
            )
        present = self.per_layer[self.per_layer > 0]
        if not present.size:
            raise ConfigError(
                "expected a size above 0 for at least one module, got only 0 (absent) everywhere; "
                "add a size to serial_bottleneck_sizes, parallel_bottleneck_sizes, prefix_lengths "
                "or lora_ranks"
            )
        if self.max_params is not None and present.min() > self.max_params:
            raise ConfigError(
                f"expected max_params of at least {present.min()}, which the smallest "
                f"configuration needs, got {self.max_params}; raise the budget or add smaller sizes"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of sizes of every module, ``m``."""
        return tuple(len(costs) for costs in self.layer_params)

    @cached_property
    def per_layer(self) -> NDArray[np.int64]:
        """Parameters of one active layer for every combination of sizes, flat in C order."""
        costs = [np.array(module, dtype=np.int64) for module in self.layer_params]
        return np.asarray(reduce(np.add.outer, costs).reshape(-1), dtype=np.int64)

    @cached_property
    def most_active(self) -> NDArray[np.int64]:
        """Most active layers that each combination may have, flat; 0 for the empty one."""
        if self.max_params is None:
            allowed = np.full_like(self.per_layer, self.num_layers)
        else:
            affordable = self.max_params // np.maximum(self.per_layer, 1)
            allowed = np.minimum(affordable, self.num_layers)
        return np.where(self.per_layer > 0, allowed, 0)

    @cached_property
    def size(self) -> int:
        """The exact number of valid configurations."""
        tally = np.bincount(self.most_active, minlength=self.num_layers + 1)
        return sum(int(n) * masks for n, masks in zip(tally, self._masks_up_to, strict=True))

    def count_params(self, levels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the parameters ``n`` of levels ``n x d``; 0 where everything is off."""
        sizes, mask = np.split(levels, [len(self.shape)], axis=1)
        mask = mask[:, : self.num_layers]
        per_layer = self.per_layer.reshape(self.shape)[tuple(sizes.T)]
        return np.asarray(per_layer * mask.sum(axis=1), dtype=np.int64)

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Returns levels ``n x (m + L)`` drawn uniformly, with repeats, from the valid ones."""
        all_masks = 2**self.num_layers
        weights = np.array([count / all_masks for count in self._masks_up_to])[self.most_active]
        picked = generator.choice(len(weights), size=n, p=weights / weights.sum())
        active = np.zeros(n, dtype=np.int64)
        for most in np.unique(self.most_active[picked]):
            rows = np.flatnonzero(self.most_active[picked] == most)
            masks = np.array(
                [math.comb(self.num_layers, k) / all_masks for k in range(1, most + 1)]
            )
            active[rows] = 1 + generator.choice(most, size=len(rows), p=masks / masks.sum())
        return self._levels(picked, active, generator)

    def sample_stratified(
        self, n: int, generator: np.random.Generator, *, p_absent: float = 0.4
    ) -> NDArray[np.int64]:
        """Returns levels ``n x d`` of valid configurations from cheap to dear, with repeats.

        A uniform draw is hardly ever small: half of the layers are on and most modules present.
        Here the number of active layers is uniform, each module is absent with probability
        `p_absent`, and a present one takes each of its sizes alike.

        Args:
            n: Number of draws.
            generator: Source of randomness.
            p_absent: Probability that a module is absent, in [0, 1).
        """
        weights = self._size_weights(p_absent)
        active = generator.integers(1, self.most_active.max(), size=n, endpoint=True)
        picked = np.zeros(n, dtype=np.int64)
        for count in np.unique(active):
            rows = np.flatnonzero(active == count)
            allowed = np.where(self.most_active >= count, weights, 0.0)
            picked[rows] = generator.choice(len(allowed), size=len(rows), p=allowed / allowed.sum())
        levels = self._levels(picked, active, generator)
        if self.num_free:
            levels = np.hstack([levels, generator.integers(self.num_free, size=(n, 1))])
        return levels

    def all_levels(self) -> NDArray[np.int64]:
        """Returns the levels ``n x d`` of every different point; for small grids."""
        rows: list[NDArray[np.int64]] = []
        for active in range(1, self.num_layers + 1):
            sizes = np.stack(
                np.unravel_index(np.flatnonzero(self.most_active >= active), self.shape)
            )
            for layers in itertools.combinations(range(self.num_layers), active):
                mask = np.isin(np.arange(self.num_layers), layers)
                rows.append(np.hstack([sizes.T, np.tile(mask, (sizes.shape[1], 1))]))
        levels = np.concatenate(rows).astype(np.int64)
        if self.num_free:
            free = np.tile(np.arange(self.num_free), len(levels))
            levels = np.column_stack([np.repeat(levels, self.num_free, axis=0), free])
        return levels

    @property
    def _masks_up_to(self) -> list[int]:
        """Number of masks with 1 to k active layers, for k = 0 ... L."""
        masks = [0] + [math.comb(self.num_layers, k) for k in range(1, self.num_layers + 1)]
        return [sum(masks[: k + 1]) for k in range(self.num_layers + 1)]

    def _size_weights(self, p_absent: float) -> NDArray[np.float64]:
        """Weight of every combination, flat: each module absent, or one of its sizes alike."""
        weights = []
        for costs in self.layer_params:
            present = np.array(costs) > 0
            share = (1 - p_absent) / max(int(present.sum()), 1)
            weights.append(np.where(present, share, p_absent))
        return np.asarray(reduce(np.multiply.outer, weights).reshape(-1), dtype=np.float64)

    def _levels(
        self,
        picked: NDArray[np.int64],
        active: NDArray[np.int64],
        generator: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Returns levels of flat combinations ``n`` with ``n`` active layers placed at random."""
        ranks = generator.random((len(picked), self.num_layers)).argsort(axis=1).argsort(axis=1)
        sizes = np.stack(np.unravel_index(picked, self.shape), axis=1)
        return np.hstack([sizes, ranks < active[:, None]]).astype(np.int64)


def scale_levels(levels: NDArray[np.int64], num_levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns levels ``... x d`` scaled to [0, 1]; a dimension with one level stays at 0."""
    return np.asarray(levels / np.maximum(num_levels - 1, 1), dtype=np.float64)


def nearest_levels(X: ArrayLike, num_levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the levels nearest to vectors ``n x d``.

    Raises:
        ConfigError: If the vectors have another length or are not finite.
    """
    vectors = np.asarray(X, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != len(num_levels):
        raise ConfigError(f"expected vectors of {len(num_levels)} entries, got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ConfigError("expected finite numbers in [0, 1], got NaN or infinity")
    return np.rint(np.clip(vectors, 0, 1) * (num_levels - 1)).astype(np.int64)
