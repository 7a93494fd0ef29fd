"""Three families of synthetic searches whose Pareto fronts are known exactly, at any depth.

The score of a configuration is what a small training might give: chance, plus a gain that grows
with the worth of the active layers and saturates in the sizes of three modules.

redundant    score = chance + span * worth ** alpha * gain * fit(rate)
             Few layers matter and neighbours do the same work; a learning rate away from its
             optimum, which falls as the adapter grows, costs score, and far above it training
             collapses.
by_part      score = chance + span * (1 - exp(-c * sum over active l of v_l)),  v = gains @ W
             Each module is of use in layers of its own, so which layers are best depends on the
             sizes; no learning rate.
synergy      score = chance + span * logistic((worth * gain - need) / slope) - overfit
             Nothing is learned below some capacity, neighbouring layers help each other, and from
             some size on more parameters cost score; no learning rate.

    gain(sizes) = 1 - prod_m (1 - a_m * (s_m / (s_m + h_m)) ** b_m)

For given sizes, rate and number of active layers the score rises with a worth that is additive in
layers and neighbouring pairs, so the best mask comes from sorting or from dynamic programming along
the layers, and the front is exact.
"""

from dataclasses import dataclass, field

import numpy as np

from peft_autoconfig.space import SIZE_NAMES, SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

CHANCE = 0.5
RATES = (3e-4, 1e-3, 3e-3)
FAMILIES = ("redundant", "by_part", "synergy")


@dataclass
class Problem:
    """One instance; its constants are drawn from `seed`.

    Attributes:
        num_layers: Layers of the imagined model.
        seed: Seed of the constants.
        family: One of `FAMILIES`.
        noise: Standard deviation of an observed score.
    """

    num_layers: int
    seed: int
    family: str = "redundant"
    noise: float = 0.01
    space: SearchSpace = field(init=False)

    def __post_init__(self):
        rates = RATES if self.family == "redundant" else None
        self.space = SearchSpace.paper(self.num_layers, 384, learning_rates=rates)
        where = FAMILIES.index(self.family)
        draw = np.random.default_rng([self.num_layers, self.seed, *([where] if where else [])])
        self.weights = draw.dirichlet(np.full(self.num_layers, 0.6))
        shared = np.minimum(self.weights[1:], self.weights[:-1])
        self.pairs = -shared * draw.uniform(0.1, 0.7, self.num_layers - 1)
        self.alpha = draw.uniform(0.4, 0.8)
        self.best_gain = draw.permutation([0.8, 0.5, 0.25]) * draw.uniform(0.8, 1.1, 3)
        self.half_size = np.exp(draw.uniform(np.log(2), np.log(60), 3))
        self.steepness = draw.uniform(0.5, 1.2, 3)
        self.span = draw.uniform(0.25, 0.4)
        self.best_rate = draw.uniform(-3.1, -2.6)
        self.rate_slope = draw.uniform(0.1, 0.35)
        if self.family == "by_part":
            self.by_part = draw.dirichlet(np.full(self.num_layers, 0.4), size=3)
            self.saturation = draw.uniform(1.5, 4.0)
        if self.family == "synergy":
            self.weights = draw.dirichlet(np.full(self.num_layers, 2.0))
            self.pairs = -self.pairs * draw.uniform(0.5, 1.5)
            self.need = draw.uniform(0.1, 0.35)
            self.slope = draw.uniform(0.05, 0.12)
            self.limit = draw.uniform(5.2, 5.9)
            self.overfit = draw.uniform(0.02, 0.08)

    def score(self, config: AutoPEFTConfig, rate: float | None) -> float:
        """Returns the score without noise."""
        sizes = np.array([[getattr(config, name) for name in SIZE_NAMES]])
        mask = np.zeros(self.num_layers, dtype=bool)
        mask[config.layers_to_transform or range(self.num_layers)] = True
        num_params = np.array([self.space.num_params(config)])
        worth = mask @ self._layer_worths(sizes).T + (mask[1:] & mask[:-1]) @ self._pairs()
        return float(self._scores(sizes, worth, num_params, rate)[0])

    def front(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the exact front: scores and parameter counts, both ``n``, ascending."""
        choices = [self.space.dimensions[name] for name in SIZE_NAMES]
        sizes = np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, 3)[1:]
        hidden = self.space.hidden_size
        adapters = ((2 * hidden + 1) * sizes + hidden) * (sizes > 0)
        per_layer = adapters[:, 0] + adapters[:, 1] + 2 * hidden * sizes[:, 2]
        best = best_worths(self._layer_worths(sizes), self._pairs())
        scores, costs = [], []
        for count in range(1, self.num_layers + 1):
            for rate in self.space.learning_rates or (None,):
                num_params = per_layer * count
                scores.append(self._scores(sizes, best[:, count - 1], num_params, rate))
                costs.append(num_params)
        return staircase(np.concatenate(scores), np.concatenate(costs))

    def hypervolume(self, scores: np.ndarray, costs: np.ndarray) -> float:
        """Returns the area between a front and (chance, largest configuration), in log10 params."""
        scores, costs = staircase(np.asarray(scores), np.asarray(costs))
        edges = np.append(np.log10(costs), np.log10(self.space.params_range[1]))
        return float((np.diff(edges) * np.maximum(scores - CHANCE, 0)).sum())

    def _layer_worths(self, sizes: np.ndarray) -> np.ndarray:
        """Returns what each layer adds by itself, ``n x L`` for sizes ``n x 3``."""
        if self.family == "by_part":
            return self._shares(sizes) @ self.by_part
        return np.repeat(self.weights[None], len(sizes), axis=0)

    def _pairs(self) -> np.ndarray:
        return np.zeros(self.num_layers - 1) if self.family == "by_part" else self.pairs

    def _shares(self, sizes: np.ndarray) -> np.ndarray:
        shares = self.best_gain * (sizes / (sizes + self.half_size)) ** self.steepness
        return np.minimum(shares, 0.95)

    def _scores(self, sizes, worth, num_params, rate) -> np.ndarray:
        """Returns ``n`` scores of sizes ``n x 3``, worths ``n`` and counts ``n``."""
        if self.family == "by_part":
            return CHANCE + self.span * (1 - np.exp(-self.saturation * worth))
        gain = 1 - np.prod(1 - self._shares(sizes), axis=-1)
        if self.family == "synergy":
            learned = self._logistic(worth * gain) - self._logistic(0.0)
            excess = np.maximum(np.log10(num_params) - self.limit, 0)
            return CHANCE + self.span * learned - self.overfit * excess
        best = self.best_rate - self.rate_slope * (np.log10(num_params) - 4)
        distance = np.log10(rate) - best
        fit = np.exp(-(distance**2) / (2 * 0.6**2)) * np.where(distance > 0.9, 0.1, 1.0)
        return CHANCE + self.span * worth**self.alpha * gain * fit

    def _logistic(self, capacity):
        return 1 / (1 + np.exp(-(capacity - self.need) / self.slope))


def best_worths(layers: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns the largest worth of k active layers, ``n x L`` for k = 1 ... L.

    Args:
        layers: ``n x L``, what each layer adds.
        pairs: ``L - 1``, what two active neighbours add beside that.
    """
    n, num_layers = layers.shape
    off = np.full((n, num_layers + 1), -np.inf)  # the best with the last layer off, by k
    off[:, 0] = 0
    on = np.full((n, num_layers + 1), -np.inf)
    for layer in range(num_layers):
        added = np.full((n, num_layers + 1), -np.inf)
        beside = on + (pairs[layer - 1] if layer else 0)
        added[:, 1:] = np.maximum(off, beside)[:, :-1] + layers[:, layer : layer + 1]
        off, on = np.maximum(off, on), added
    return np.maximum(off, on)[:, 1:]


def staircase(scores: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the non-dominated points, both ``n``, by ascending cost."""
    order = np.lexsort((-scores, costs))
    scores, costs = scores[order], costs[order]
    better = scores > np.concatenate([[-np.inf], np.maximum.accumulate(scores)[:-1]])
    return scores[better], costs[better]
