"""How much a point is expected to improve the front: noisy EHVI in closed form, cost known.

With an exact cost ``c``, the area that a point of score ``y`` adds is the part of the strip between
``c`` and the reference cost in which ``y`` rises above the staircase of the front. Its expectation
is a sum of one-dimensional expected improvements (EI), one per step of the staircase, weighted with
the step's width: exact, without box decomposition, for thousands of points at once. Noise makes the
front itself uncertain; as in NEHVI (Daulton et al. 2021) the sum is averaged over joint draws of
what the points seen and pending may truly be. All in logarithms, as LogEI (Ament et al. 2023).
"""

import math

import torch
from torch import Tensor

from .pareto import staircase
from .surrogate import Fantasies

__all__ = ["LogNoisyEHVI", "log_expected_improvement"]

CHUNK = 256  # points evaluated at once: bounds memory at chunk x samples x steps


class LogNoisyEHVI:
    """The logarithm of the expected hypervolume improvement of points of known cost.

    Args:
        fantasies: Draws of the noise-free scores of ``b`` baseline points, seen and pending.
        costs: ``b`` costs of these points, on the scale on which area is meant.
        reference: Score, on the scale of the draws, and cost; improvement is measured within it.
    """

    def __init__(self, fantasies: Fantasies, costs: Tensor, reference: tuple[float, float]) -> None:
        floor, ceiling = reference
        edges, levels = staircase(fantasies.values, costs, floor)
        steps = torch.cat([edges.new_tensor([-math.inf]), edges])
        rises = torch.cat([edges.new_ones(1, dtype=torch.bool), (levels.diff() > 0).any(dim=0)])
        self._fantasies = fantasies
        self._levels = levels[:, rises]
        self._starts = steps[rises].clamp_max(ceiling)
        self._ends = torch.cat([self._starts[1:], edges.new_tensor([ceiling])])

    @torch.no_grad()
    def __call__(self, X: Tensor, costs: Tensor) -> Tensor:
        """Returns ``n`` values; minus infinity where the cost is beyond the reference.

        Args:
            X: ``n x d`` model inputs.
            costs: ``n``.
        """
        order = costs.argsort(stable=True)  # so that the dear share few steps in a chunk
        chunks = zip(torch.split(X[order], CHUNK), torch.split(costs[order], CHUNK), strict=True)
        values = torch.cat([self._evaluate(*chunk) for chunk in chunks])
        return torch.empty_like(values).index_copy_(0, order, values)

    def _evaluate(self, X: Tensor, costs: Tensor) -> Tensor:
        mean, deviation = self._fantasies.posterior(X)
        steps = slice(int((self._ends <= costs.min()).sum()), None)  # the others have no width
        starts, ends, levels = self._starts[steps], self._ends[steps], self._levels[:, steps]
        widths = (ends - torch.maximum(starts, costs[:, None])).clamp_min(0)
        log_ei = log_expected_improvement(mean[..., None], deviation[..., None], levels)
        terms = log_ei + widths.log()[:, None]
        return terms.flatten(start_dim=1).logsumexp(dim=1) - math.log(mean.shape[1])


def log_expected_improvement(mean: Tensor, deviation: Tensor, level: Tensor) -> Tensor:
    """Returns log E[max(y - level, 0)] for normal y, accurate far below the level too.

    Args:
        mean: Any shape that broadcasts with the others.
        deviation: Standard deviation, above 0.
        level: What must be exceeded.
    """
    z = (mean - level) / deviation
    near = z.clamp_min(-1)
    density = torch.exp(-0.5 * near.square()) / math.sqrt(2 * math.pi)
    above = torch.log(density + near * torch.special.ndtr(near))
    # Below, with Mills' ratio m(z) = Phi(z) / phi(z): log phi(z) + log(1 + z m(z)); further below
    # even that cancels, and the first terms of its expansion in 1 / z^2 take over.
    middle = z.clamp(-100, -1)
    mills = torch.special.erfcx(-middle / math.sqrt(2)) * math.sqrt(math.pi / 2)
    far = z.clamp_max(-100)
    tail = torch.where(
        z > -100, torch.log1p(middle * mills), torch.log1p(-3 / far.square()) - 2 * (-far).log()
    )
    below = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) + tail
    return torch.where(z > -1, above, below) + deviation.log()
