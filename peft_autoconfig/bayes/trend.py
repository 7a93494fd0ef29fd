"""What the score of an adapter is like: capacity adds up over layers and parts, and saturates.

    score    = base + span * (1 - exp(-capacity ** shape))
    capacity = fit * sum of weight_l,p * gain_p * size_p ** exponent_p  over active l, all p
    fit      = exp(-(rate - optimum - slope * (cost - 1/2)) ** 2 / (2 * width ** 2))

for layers l and parts p. A weight_l,p is one number of the layer times one of both, cost is that of
the whole configuration, and fit is 1 where no rate varies. A Gaussian process on the bits of a mask
must see each layer switched in many surroundings; here every score says something of every layer
that is on. What this leaves unsaid is for the process to learn.

All unknowns have normal priors, of their logarithms where they are positive. They are found by
Gauss-Newton steps and then stand as a linear model around what was found, whose uncertainty is
that of a Gaussian process too (a Laplace approximation).

Plain torch; imported by `gaussian_process`, `lattice` and `surrogate`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Layout", "Trend", "fit_trend"]

# Mean and deviation of each group of unknowns; scores are scaled so that the low ones are at 0 and
# the best at 1, inputs lie in [0, 1]. Size 1 in one layer may come close to the best or to nothing.
PRIORS = {
    "gain": (0.0, 1.0),
    "exponent": (-0.7, 1.0),
    "layer": (0.0, 1.2),
    "layer_and_part": (0.0, 0.5),
    "shape": (-0.4, 0.7),
    "span": (math.log(2), 0.5),
    "base": (0.0, 0.5),
    "optimum": (0.7, 0.4),
    "slope": (-0.5, 0.5),
    "width": (-0.7, 0.5),
}
LOW = 0.1  # quantile of the scores that is scaled to 0
# Expected misfit of a scaled score: 0.25 at first, then this many times what is seen. Above what it
# is, so that linear is true of a wider neighbourhood, and what is known of it is not overrated.
LARGEST_MISFIT, LEAST_MISFIT, MISFIT_PER_SEEN = 0.25, 0.06, 1.5
MAX_STEPS, SHORTEST, ENOUGH = 20, 1e-3, 1e-3  # Gauss-Newton: steps, part of a step, gain
LEAST = 1e-9  # capacities and sizes whose logarithm is taken


@dataclass(frozen=True)
class Layout:
    """Which model inputs are what.

    Attributes:
        sizes: Inputs that are sizes, 0 where a part is absent.
        layers: Inputs that are bits of the layers.
        cost: The input that is the cost.
        rate: The input that is the learning rate; None if there is none.
    """

    sizes: range
    layers: range
    cost: int
    rate: int | None = None

    @property
    def groups(self) -> dict[str, int]:
        """The number of unknowns of each group, in their order."""
        parts, layers = len(self.sizes), len(self.layers)
        groups = {"gain": parts, "exponent": parts, "layer": layers}
        groups |= {"layer_and_part": parts * layers, "shape": 1, "span": 1, "base": 1}
        return groups if self.rate is None else groups | {"optimum": 1, "slope": 1, "width": 1}

    def other_inputs(self, num_inputs: int) -> list[int]:
        """Returns the inputs that are not layers."""
        return [i for i in range(num_inputs) if i not in self.layers]


@dataclass(frozen=True)
class Trend:
    """The formula above at certain unknowns, and the linear model around them.

    Attributes:
        layout: Which inputs are what.
        unknowns: ``q``, each in deviations of its prior from its mean.
        location: Score that is scaled to 0.
        scale: What is scaled to 1, from there.
    """

    layout: Layout
    unknowns: Tensor
    location: float
    scale: float

    def evaluate(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores ``n`` at inputs ``n x p``, and their derivatives ``n x q``."""
        found = dict(self._named())
        bits = X[:, self.layout.layers.start : self.layout.layers.stop]
        sizes = X[:, self.layout.sizes.start : self.layout.sizes.stop]
        logs = sizes.clamp_min(LEAST).log() * (sizes > 0)
        exponent = found["exponent"].exp()
        gains = (found["gain"] + exponent * logs).exp() * (sizes > 0)
        by_rate: dict[str, Tensor] = {}
        if self.layout.rate is not None:
            cost, width = X[:, self.layout.cost] - 0.5, found["width"].exp()
            optimum = found["optimum"] + found["slope"] * cost
            distance = (X[:, self.layout.rate] - optimum) / width
            gains = gains * (-0.5 * distance.square()).exp()[:, None]
            by_rate = {
                "optimum": distance / width,
                "slope": distance / width * cost,
                "width": distance.square(),
            }
        both = found["layer_and_part"].reshape(len(self.layout.sizes), -1)
        weights = (found["layer"] + both).exp() / len(self.layout.layers)  # parts x layers
        shares = gains * (bits @ weights.T)  # n x parts
        capacity = shares.sum(dim=1).clamp_min(LEAST)
        shape, span = found["shape"].exp(), found["span"].exp()
        power = capacity**shape
        left = span * (-power).exp()  # of the span
        per_log = left * shape * power  # derivative by the logarithm of the capacity
        per_share = (per_log / capacity)[:, None] * shares
        of_all = per_share.sum(dim=1)
        by_weight = (per_log / capacity)[:, None, None] * gains[..., None] * weights
        by_weight = by_weight * bits[:, None]
        derivatives = {
            "gain": per_share,
            "exponent": per_share * exponent * logs,
            "layer": by_weight.sum(dim=1),
            "layer_and_part": by_weight.flatten(start_dim=1),
            "shape": (per_log * capacity.log())[:, None],
            "span": (span - left)[:, None],
            "base": torch.ones_like(capacity)[:, None],
            **{name: (of_all * factor)[:, None] for name, factor in by_rate.items()},
        }
        scores = found["base"] + span - left
        jacobian = torch.cat([derivatives[n] * PRIORS[n][1] for n in self.layout.groups], dim=1)
        return self.location + self.scale * scores, self.scale * jacobian

    def linear(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the prior of the linear model at inputs ``n x p``.

        Its means are ``n``, and its covariances the products of features ``n x q``.
        """
        scores, features = self.evaluate(X)
        return scores - features @ self.unknowns, features

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        sizes = self.layout.groups
        parts = torch.split(self.unknowns, [*sizes.values()])
        for name, part in zip(sizes, parts, strict=True):
            mean, deviation = PRIORS[name]
            yield name, mean + deviation * part


def fit_trend(layout: Layout, X: Tensor, Y: Tensor) -> Trend | None:
    """Returns the most probable trend; None where the scores are all alike.

    Args:
        layout: Which inputs are what.
        X: ``n x p`` inputs, each in [0, 1].
        Y: ``n`` scores.
    """
    location = float(Y.quantile(LOW))
    scale = float(Y.max()) - location
    if not 1e-9 < scale < math.inf:
        return None
    trend = Trend(layout, X.new_zeros(sum(layout.groups.values())), location, scale)
    trend = _improve(trend, X, Y, LARGEST_MISFIT)
    seen = float((Y - trend.evaluate(X)[0]).square().mean().sqrt()) / scale
    misfit = min(LARGEST_MISFIT, max(LEAST_MISFIT, MISFIT_PER_SEEN * seen))
    return _improve(trend, X, Y, misfit)


def _improve(trend: Trend, X: Tensor, Y: Tensor, scaled_misfit: float) -> Trend:
    """Returns the most probable trend, by Gauss-Newton steps from a given one."""
    misfit = scaled_misfit * trend.scale
    scores, features = trend.evaluate(X)
    value = _improbability(trend, scores, Y, misfit)
    for _ in range(MAX_STEPS):
        inner = features @ features.T + misfit**2 * torch.eye(len(Y), dtype=Y.dtype)
        linear = Y - scores + features @ trend.unknowns
        goal = features.T @ torch.linalg.solve(inner, linear)
        step, gained = 1.0, -math.inf
        while step > SHORTEST and not gained > 0:
            moved = replace(trend, unknowns=torch.lerp(trend.unknowns, goal, step))
            scores, features = moved.evaluate(X)
            gained = value - _improbability(moved, scores, Y, misfit)
            step /= 2.5
        if not gained > 0:
            break
        trend, value = moved, value - gained
        if gained < ENOUGH:
            break
    return trend


def _improbability(trend: Trend, scores: Tensor, Y: Tensor, misfit: float) -> float:
    """Returns the negative logarithm of the posterior density, but for a constant."""
    error = float((Y - scores).square().sum()) / misfit**2
    return 0.5 * error + 0.5 * float(trend.unknowns.square().sum())
