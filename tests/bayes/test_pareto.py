"""The front and its hypervolume against definitions, with ties and failures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_autoconfig.bayes.pareto import hypervolume, is_non_dominated, staircase

NAN = math.nan


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("scores", "costs", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], [1, 1, 1]),
        ([3, 2, 1], [1, 2, 3], [1, 0, 0]),
        ([1, 1, 1], [2, 1, 3], [0, 1, 0]),  # a tie in the score: the cheapest stays
        ([1, 2, 3], [1, 1, 1], [0, 0, 1]),  # a tie in the cost: the best stays
        ([1, 1, 0], [1, 1, 2], [1, 1, 0]),  # equal points stand together
        ([NAN, 2, math.inf], [0, 2, 1], [0, 1, 0]),  # failures are on no front
        ([1, 2], [1, math.inf], [1, 0]),
        ([NAN], [1], [0]),
        ([], [], []),
    ],
)
def test_non_dominated(scores, costs, expected):
    assert is_non_dominated(tensor(*scores), tensor(*costs)).tolist() == [bool(e) for e in expected]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_hypervolume_counts_the_dominated_cells(points):
    scores, costs = (tensor(*values) for values in zip(*points, strict=True))
    cells = {
        (i, j) for s, c in points for i in range(2, s) for j in range(c, 5)
    }  # unit cells between score 2 and s, and between cost c and 5
    assert hypervolume(scores, costs, (2.0, 5.0)) == len(cells)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10))
@settings(max_examples=60, deadline=None)
def test_front_by_definition(points):
    scores, costs = (tensor(*values) for values in zip(*points, strict=True))
    expected = [
        not any(s2 >= s and c2 <= c and (s2, c2) != (s, c) for s2, c2 in points) for s, c in points
    ]
    assert is_non_dominated(scores, costs).tolist() == expected


def test_failures_and_what_is_worse_than_the_reference_add_nothing():
    scores, costs = tensor(1, NAN, 5, 0.5, 9), tensor(1, 0, 9, 0, NAN)
    assert hypervolume(scores, costs, (0.5, 3.0)) == pytest.approx(0.5 * 2)
    assert hypervolume(tensor(NAN), tensor(1), (0.0, 1.0)) == 0


def test_staircase_of_a_batch():
    scores = tensor(3, 1, 2), tensor(0, 5, 1)
    edges, levels = staircase(torch.stack(scores), tensor(3, 1, 2), floor=1.5)
    assert edges.tolist() == [1, 2, 3]
    assert levels.tolist() == [[1.5, 1.5, 2, 3], [1.5, 5, 5, 5]]
