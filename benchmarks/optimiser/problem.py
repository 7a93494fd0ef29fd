"""A family of synthetic searches whose Pareto front is known exactly.

The score of a configuration is what a small training might give: chance, plus a gain that
saturates in the sizes of three modules, times the worth of the active layers, lowered by a learning
rate away from its optimum, which falls as the adapter grows; far above it training collapses.

    worth(mask) = (sum of w_l over active l, less r_l for every neighbouring pair) ** alpha
    gain(sizes) = 1 - prod_m (1 - a_m * (s_m / (s_m + h_m)) ** b_m)
    score       = chance + span * worth * gain * exp(-(log10(rate) - best)^2 / 2 width^2)

For given sizes and rate the score rises with `worth`, so the best mask of each popcount, found by
enumerating all ``2**L`` masks once, makes the front exact.
"""

from dataclasses import dataclass, field

import numpy as np

from peft_autoconfig.space.space import SIZE_NAMES, SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

CHANCE = 0.5
RATES = (3e-4, 1e-3, 3e-3)


@dataclass
class Problem:
    """One instance; its constants are drawn from `seed`.

    Attributes:
        num_layers: Layers of the imagined model, at most 16.
        seed: Seed of the constants.
        noise: Standard deviation of an observed score.
    """

    num_layers: int
    seed: int
    noise: float = 0.01
    space: SearchSpace = field(init=False)

    def __post_init__(self):
        self.space = SearchSpace.paper(self.num_layers, 384, learning_rates=RATES)
        draw = np.random.default_rng([self.num_layers, self.seed])
        self.weights = draw.dirichlet(np.full(self.num_layers, 0.6))
        shared = np.minimum(self.weights[1:], self.weights[:-1])
        self.redundancy = shared * draw.uniform(0.1, 0.7, self.num_layers - 1)
        self.alpha = draw.uniform(0.4, 0.8)
        self.best_gain = draw.permutation([0.8, 0.5, 0.25]) * draw.uniform(0.8, 1.1, 3)
        self.half_size = np.exp(draw.uniform(np.log(2), np.log(60), 3))
        self.steepness = draw.uniform(0.5, 1.2, 3)
        self.span = draw.uniform(0.25, 0.4)
        self.best_rate = draw.uniform(-3.1, -2.6)
        self.rate_slope = draw.uniform(0.1, 0.35)

    def score(self, config: AutoPEFTConfig, rate: float) -> float:
        """Returns the score without noise."""
        sizes = np.array([getattr(config, name) for name in SIZE_NAMES])
        mask = np.zeros(self.num_layers, dtype=bool)
        mask[config.layers_to_transform or range(self.num_layers)] = True
        return float(self._score(sizes, self._worth(mask), self.space.num_params(config), rate))

    def observe(self, config: AutoPEFTConfig, rate: float, generator: np.random.Generator) -> float:
        """Returns the score with noise."""
        return self.score(config, rate) + self.noise * generator.standard_normal()

    def front(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the exact front: scores and parameter counts, both ``n``, ascending."""
        masks = (np.arange(1, 2**self.num_layers)[:, None] >> np.arange(self.num_layers)) & 1
        worth = self._worth(masks.astype(bool))
        active = masks.sum(axis=1)
        best = {k: worth[active == k].max() for k in range(1, self.num_layers + 1)}
        choices = [self.space.dimensions[name] for name in SIZE_NAMES]
        sizes = np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, 3)[1:]
        hidden = self.space.hidden_size
        adapters = ((2 * hidden + 1) * sizes + hidden) * (sizes > 0)
        per_layer = adapters[:, 0] + adapters[:, 1] + 2 * hidden * sizes[:, 2]
        scores, costs = [], []
        for count, worth_of_best in best.items():
            for rate in RATES:
                scores.append(self._score(sizes, worth_of_best, per_layer * count, rate))
                costs.append(per_layer * count)
        return staircase(np.concatenate(scores), np.concatenate(costs))

    def hypervolume(self, scores: np.ndarray, costs: np.ndarray) -> float:
        """Returns the area between a front and (chance, largest configuration), in log10 params."""
        scores, costs = staircase(np.asarray(scores), np.asarray(costs))
        largest = np.log10(self.space.count_params(np.ones((1, len(self.space.dimensions)))))
        edges = np.append(np.log10(costs), largest)
        return float((np.diff(edges) * np.maximum(scores - CHANCE, 0)).sum())

    def _worth(self, mask: np.ndarray) -> np.ndarray:
        pairs = mask[..., 1:] & mask[..., :-1]
        return (mask @ self.weights - pairs @ self.redundancy) ** self.alpha

    def _score(self, sizes, worth, num_params, rate):
        share = self.best_gain * (sizes / (sizes + self.half_size)) ** self.steepness
        gain = 1 - np.prod(1 - np.minimum(share, 0.95), axis=-1)
        best = self.best_rate - self.rate_slope * (np.log10(num_params) - 4)
        distance = np.log10(rate) - best
        fit = np.exp(-(distance**2) / (2 * 0.6**2)) * np.where(distance > 0.9, 0.1, 1.0)
        return CHANCE + self.span * worth * gain * fit


def staircase(scores: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the non-dominated points, both ``n``, by ascending cost."""
    order = np.lexsort((-scores, costs))
    scores, costs = scores[order], costs[order]
    better = scores > np.concatenate([[-np.inf], np.maximum.accumulate(scores)[:-1]])
    return scores[better], costs[better]
