"""The exact fronts against all configurations of a few layers: `pytest benchmarks/optimiser`."""

import itertools

import numpy as np
import pytest
from problem import FAMILIES, Problem, best_worths, staircase

from peft_autoconfig.space import SearchSpace


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_front_is_that_of_all_configurations(family, seed):
    problem = Problem(4, seed, family)
    coarse = {name: (0, 3, 96) for name in ("serial_bottleneck_sizes", "parallel_bottleneck_sizes")}
    problem.space = SearchSpace.from_dict(problem.space.to_dict() | coarse)
    decoded = [problem.space.decode(x) for x in problem.space.points()]
    scores = np.array([problem.score(config, rate) for config, rate in decoded])
    costs = np.array([problem.space.num_params(config) for config, _ in decoded])
    found = staircase(scores, costs)
    exact = problem.front()
    np.testing.assert_allclose(exact[0], found[0])
    np.testing.assert_array_equal(exact[1], found[1])
    assert 0.01 < scores.max() - 0.5 < 0.5


def test_best_masks_by_dynamic_programming_and_by_enumeration():
    draw = np.random.default_rng(0)
    layers, pairs = draw.normal(size=(5, 7)), draw.normal(size=6)
    masks = np.array([*itertools.product((0, 1), repeat=7)])[1:]
    worth = masks @ layers.T + ((masks[:, 1:] & masks[:, :-1]) @ pairs)[:, None]
    expected = [worth[masks.sum(axis=1) == k].max(axis=0) for k in range(1, 8)]
    np.testing.assert_allclose(best_worths(layers, pairs), np.array(expected).T)
