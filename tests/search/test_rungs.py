"""Trials that tell how they stand, and are stopped where they cannot reach the front."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from peft_autoconfig.outcome import Outcome
from peft_autoconfig.search import Search
from peft_autoconfig.search.live import _line
from peft_autoconfig.search.progress import progress_of
from peft_autoconfig.search.rungs import MARGIN, MIN_COMPLETE, Reporter

from .search_cases import SPACE, complete, open_search, run_path, states  # noqa: F401


def whole(final, score, loss=None, num_params=100, fraction=0.25):
    """A complete trial that stood so at a rung."""
    rungs = [[fraction, score, loss]]
    return create_trial(values=[final, float(num_params)], user_attrs={"rungs": rungs})


# the better they stand at a quarter, the better they end
PAST = [whole(0.5 + i / 20, i / 10, loss=2 - i / 10) for i in range(8)]
PAST = (MIN_COMPLETE // 8 + 1) * PAST
BEST = PAST[-1].values[0]


def stops(score, loss=None, past=PAST, num_params=100, fraction=0.25):
    reporter = Reporter(lambda: past, num_params)
    try:
        reporter(fraction, score, loss)
    except optuna.TrialPruned:
        return True
    return False


@pytest.mark.parametrize(
    ("score", "loss", "is_stopped"),
    [
        (0.21, 1.79, True),  # at best what the third came to
        (0.21, None, True),
        (0.21, 1.2, False),  # the score is low, but the loss is as good as the best one's
        (0.75, 1.9, False),  # and the other way round
        (0.75, 1.25, False),
    ],
)
def test_the_best_that_stood_no_better_is_the_hope(score, loss, is_stopped):
    assert stops(score, loss) == is_stopped


def test_a_margin_is_left_for_noise():
    near = [whole(BEST - MARGIN / 2, 0.3) for _ in range(MIN_COMPLETE)] + [whole(BEST, 0.9)]
    assert not stops(0.4, past=near)
    assert stops(0.4, past=[*near, whole(BEST + MARGIN, 0.9)])


def test_only_no_dearer_ones_set_the_goal():
    cheap = create_trial(values=[0.55, 10.0])
    assert not stops(0.21, num_params=99)
    assert not stops(0.21, num_params=99, past=[*PAST, cheap])
    assert stops(0.21, num_params=99, past=[*PAST, create_trial(values=[0.7, 10.0])])


def test_nobody_is_stopped_without_a_forecast():
    few = PAST[1:MIN_COMPLETE]
    assert not stops(0.0, past=few)
    assert not stops(0.0, fraction=0.5)
    pruned = create_trial(state=TrialState.PRUNED, user_attrs={"rungs": [[0.25, 0.9, None]]})
    assert not stops(0.0, past=[*few, pruned])


def test_what_is_reached_already_is_hope_too():
    high = [whole(0.4, i / 10) for i in range(MIN_COMPLETE)]
    assert not stops(0.39, past=high)


def test_nonsense_is_refused_or_passed_over():
    reporter = Reporter(lambda: PAST, 100)
    with pytest.raises(ValueError, match="fraction in"):
        reporter(1.0, 0.5)
    reporter(0.25, float("nan"))
    assert reporter.facts == {}
    reporter(0.5, 0.7, float("inf"))
    assert reporter.facts == {"rungs": [[0.5, 0.7, None]]}


def slow_or_quick(space):
    """An objective that is good at the higher rate, as it shows halfway, and keeps count."""
    ended = []

    def objective(config, learning_rate, report):
        score = 0.9 if learning_rate == 5e-3 else 0.3
        report(0.5, score / 2, 1 - score)
        ended.append(learning_rate)
        return Outcome(score, loss=1 - score, seconds=10.0)

    objective.ended = ended
    return objective


def test_a_search_stops_the_hopeless_and_counts_them_as_done(folder):
    search = open_search(folder)
    objective, lines = slow_or_quick(SPACE), []
    search.run(
        objective,
        45,
        callbacks=[lambda s, r: lines.append(_line("", r, progress_of(s, 45)))],
    )
    kept, stopped = complete(search), [r for r in search.trials if r.is_stopped]
    assert len(kept) + len(stopped) == 45
    assert len(stopped) > 5
    assert len(objective.ended) == len(kept)
    assert {r.learning_rate for r in stopped} == {1e-3}
    assert all(r.score is None and r.seconds < 1 and r.rungs[0].score == 0.15 for r in stopped)
    assert all(r.rungs[0].fraction == 0.5 for r in kept)
    assert all(r.score == 0.9 for r in search.front()[1:])
    progress = progress_of(search, 45)
    assert (progress.done, progress.stopped, progress.failed) == (45, len(stopped), 0)
    assert any("stopped at 50% of its training with score 0.15" in line for line in lines)
    assert "rungs" not in search.to_pandas().columns


def test_the_same_call_finds_the_budget_spent(folder):
    open_search(folder).run(slow_or_quick(SPACE), 20)
    again = slow_or_quick(SPACE)
    Search.open(folder).run(again, 20)
    assert again.ended == []


def test_an_objective_need_not_report(folder):
    search = open_search(folder)
    search.run(lambda config, learning_rate: 0.5, 3)
    assert states(search).count("COMPLETE") == 3
    assert all(record.rungs == () for record in search.trials)


def test_a_trial_that_was_thought_lost_may_be_stopped_late(folder):
    search = open_search(folder)
    record = search.ask()
    search.hand_back(record.number)
    late = search.stop(record.number, "hopeless", Reporter(list, 1), seconds=1.0)
    assert (late.state, late.reason) == ("FAIL", "interrupted")


def test_the_forecast_is_the_mean_of_the_most_alike():
    reporter = Reporter(lambda: PAST, 100)
    with pytest.raises(optuna.TrialPruned, match="none that stood no better"):
        reporter(0.25, 0.2, 1.8)
    assert reporter.facts["forecast"] == pytest.approx(0.6)
    assert reporter.facts["rungs"] == [[0.25, 0.2, 1.8]]
