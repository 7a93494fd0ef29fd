"""The pilot: what it tries first, and when it refuses to search."""

import pytest

from peft_autoconfig.errors import SearchError
from peft_autoconfig.outcome import Outcome
from peft_autoconfig.search.pilot import leaves_baseline, pilot_points
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.space import SearchSpace

from .search_cases import (
    PLAIN,
    SIZES,
    SPACE,
    complete,
    open_search,
    run_path,  # noqa: F401 (the fixture `folder`)
    states,
)


def test_the_points_are_a_middle_and_a_large_configuration():
    points = pilot_points(SPACE)
    assert [rate for _, rate in points] == [5e-3, 5e-3, 1e-3, 1e-3]
    (middle, _), (large, _) = points[:2]
    most = SPACE.num_params(large)
    assert (large.serial_bottleneck_size, large.prefix_length) == (4, 4)
    assert large.layers_to_transform is None
    assert 0 < SPACE.num_params(middle) < most


def test_at_most_three_rates():
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    space = SearchSpace(num_layers=2, hidden_size=4, learning_rates=rates, **SIZES)
    assert [rate for _, rate in pilot_points(space)][::2] == [1e-3, 1e-2, 1e-4]
    assert [rate for _, rate in pilot_points(PLAIN)] == [None, None]


@pytest.mark.parametrize("max_params", [8, 40, 200])
def test_a_budget_is_kept(max_params):
    space = SearchSpace(num_layers=2, hidden_size=4, max_params=max_params, **SIZES)
    assert all(space.is_valid(config) for config, _ in pilot_points(space))


def record(score, loss=None, state="COMPLETE"):
    return TrialRecord(0, state, score=score, num_params=1, loss=loss)


@pytest.mark.parametrize(
    ("records", "leaves"),
    [
        ([], False),
        ([record(0.68)], False),
        ([record(0.689)], False),
        ([record(0.60), record(0.75)], True),
        ([record(None, state="FAIL")], False),
        ([record(0.68, loss=0.617)], False),  # mrpc at too few steps: the entropy is .624
        ([record(0.68, loss=0.590)], True),
        ([record(0.68, loss=0.9)], False),
    ],
)
def test_leaves_baseline(records, leaves):
    assert leaves_baseline(records, 0.684, 0.01, 0.624) is leaves


def test_a_task_stuck_at_the_majority_class_is_refused(folder):
    search = open_search(folder)
    with pytest.raises(SearchError, match=r"Not searchable.*at best 0\.684.*Train longer"):
        search.pilot(lambda config, learning_rate: Outcome(0.684, loss=0.62), 0.684)
    assert states(search) == ["COMPLETE"] * len(pilot_points(SPACE))
    with pytest.raises(SearchError, match="Not searchable"):  # told again, not trained again
        search.pilot(pytest.fail, 0.684)


def test_a_pilot_ends_at_the_first_sign_and_counts(folder):
    search = open_search(folder)
    search.pilot(lambda config, learning_rate: 0.8, 0.684)
    search.pilot(pytest.fail, 0.684)
    assert len(complete(search)) == 1
    search.run(lambda config, learning_rate: 0.7, 3)
    assert len(complete(search)) == 3


def test_a_loss_can_tell_what_a_coarse_score_does_not(folder):
    search = open_search(folder)
    search.pilot(
        lambda config, learning_rate: Outcome(0.684, loss=0.59), 0.684, baseline_loss=0.624
    )
    assert len(complete(search)) == 1


def test_a_pilot_that_only_fails_says_why(folder):
    def broken(config):
        raise KeyError("labels")

    with pytest.raises(SearchError, match=r"Every trial of the pilot failed: KeyError: 'labels'"):
        open_search(folder, PLAIN).pilot(broken, 0.5)
