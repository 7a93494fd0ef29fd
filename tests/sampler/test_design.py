"""The startup: cheap and dear, every rate, what is published."""

import numpy as np
import pytest

from peft_autoconfig.sampler import startup_design
from peft_autoconfig.space import SearchSpace

from .cases import RATES, SPACE, THREE_POINTS


def test_startup_covers_cheap_and_dear_every_rate_and_published_configurations():
    design = np.array(startup_design(SPACE, 12, 0))
    counts = SPACE.count_params(design)
    assert counts.min() < 1000
    assert counts.max() > 20_000
    rates = [SPACE.decode(x)[1] for x in design]
    assert {rates.count(rate) for rate in RATES} == {4}
    assert sorted(rates, reverse=True) == [rates[i] for i in counts.argsort(kind="stable")]
    shapes = [
        (c.serial_bottleneck_size, c.parallel_bottleneck_size, c.prefix_length)
        for c in (SPACE.decode(x)[0] for x in design)
        if c.layers_to_transform is None
    ]
    assert {(4, 0, 0), (0, 16, 0), (0, 0, 16)} <= set(shapes)


def test_startup_has_each_part_by_itself_at_its_least_in_a_quarter_of_the_layers():
    space = SearchSpace.paper(24, 64)
    found = []
    for seed in (0, 1):
        least = {}
        for config, _ in map(space.decode, startup_design(space, 12, seed)):
            sizes = {name: getattr(config, name) for name in space.size_names}
            used = [name for name, size in sizes.items() if size]
            if len(used) == 1 and len(config.layers_to_transform or ()) == 6:
                if sizes[used[0]] == space.dimensions[used[0]][1]:
                    least[used[0]] = tuple(config.layers_to_transform)
        assert set(least) == set(space.size_names)
        found += least.values()
    assert len(set(found)) == 6


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_startup_of_any_length_in_any_space(n):
    for space in (SPACE, THREE_POINTS, SearchSpace.paper(12, 768, max_params=5000)):
        design = startup_design(space, n, 0)
        assert len(design) == n
        assert all(space.is_valid(space.decode(x)[0]) for x in design)
