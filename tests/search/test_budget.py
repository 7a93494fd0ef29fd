"""When a search ends: by trials, by the clock, by the cost; and what it tries again."""

import time

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from peft_autoconfig.errors import ConfigError, TrainingError
from peft_autoconfig.outcome import Outcome
from peft_autoconfig.search.budget import Budget, training_seconds
from peft_autoconfig.search.snapshot import Snapshot

from .search_cases import complete, open_search, points, run_path, scored, states  # noqa: F401

HOUR = 3600.0


def trial(state, **attributes):
    values = [0.5, 10.0] if state == TrialState.COMPLETE else None
    return create_trial(state=state, values=values, user_attrs=attributes)


def done(seconds):
    return trial(TrialState.COMPLETE, seconds=seconds)


def running(beats=0):
    return trial(TrialState.RUNNING, beat=beats)


def failed(**attributes):
    return trial(TrialState.FAIL, **attributes)


def verdict_of(budget, trials, seconds):
    snapshot = Snapshot()
    for number, one in enumerate(trials):
        one.number = number
        snapshot.put(one)
    return budget.verdict(snapshot, seconds)


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ([], "go"),
        ([done(1), running(), failed()], "go"),
        ([done(1), running(), running()], "wait"),
        ([done(1), done(1), done(1), running()], "end"),
    ],
)
def test_the_number_of_trials(trials, verdict):
    assert verdict_of(Budget(3), trials, 1e9) == verdict


def test_the_clock():
    budget = Budget(3, max_hours=2)
    assert verdict_of(budget, [done(1)], 2 * HOUR - 1) == "go"
    assert verdict_of(budget, [done(1), running()], 2 * HOUR) == "end"


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ([], "go"),
        ([running(), running()], "go"),  # no cost is known
        ([done(1000), done(1000)], "go"),
        ([done(1000), done(1000), running()], "wait"),  # one more would be 4000
        ([done(1000), done(1000), running(beats=20)], "wait"),
        ([done(1000), done(1000), failed(seconds=500)], "go"),
        ([done(1000), done(1000), failed(seconds=700)], "end"),
        ([done(1000), done(1000), failed(beat=12)], "end"),  # its worker died in minute 12
        ([failed(seconds=3601)], "end"),
    ],
)
def test_the_cost(trials, verdict):
    assert verdict_of(Budget(100, max_training_hours=1), trials, 0) == verdict


def test_a_trial_costs_what_its_worker_measured_or_its_signs_of_life_say():
    assert training_seconds(done(12.5)) == 12.5
    assert training_seconds(trial(TrialState.COMPLETE, seconds=90.0, beat=1)) == 90.0
    assert training_seconds(failed(beat=3)) == 180.0
    assert training_seconds(failed()) == 0.0


@pytest.mark.parametrize("hours", [0, -1, True, float("nan")])
@pytest.mark.parametrize("name", ["max_hours", "max_training_hours"])
def test_impossible_hours_are_refused(name, hours):
    with pytest.raises(ConfigError, match=name):
        Budget(1, **{name: hours})


@pytest.mark.parametrize("retries", [-1, 1.5, True])
def test_impossible_retries_are_refused(retries):
    with pytest.raises(ConfigError, match="retries"):
        Budget(1, retries=retries)


def test_a_search_ends_by_cost(folder):
    search = open_search(folder)
    search.run(lambda c, learning_rate: Outcome(0.5, seconds=600.0), 20, max_training_hours=0.5)
    assert len(complete(search)) == 3
    open_search(folder).run(pytest.fail, 20, max_training_hours=0.5)


def test_a_search_ends_by_the_clock_also_when_it_goes_on(folder):
    search = open_search(folder)

    def slow(config, learning_rate):
        time.sleep(0.3)
        return 0.5

    search.run(slow, 20, max_hours=0.5 / HOUR)
    assert 1 <= len(complete(search)) <= 2
    open_search(folder).run(pytest.fail, 20, max_hours=0.5 / HOUR)


def test_a_clock_that_is_set_back_ends_nothing_early(folder, monkeypatch):
    search = open_search(folder)
    monkeypatch.setattr("peft_autoconfig.search.place.time.time", lambda: 2e9)
    search.run(scored, 1, max_hours=1)
    monkeypatch.setattr("peft_autoconfig.search.place.time.time", lambda: 1e9)
    search.run(scored, 3, max_hours=1)
    assert len(complete(search)) == 3


def test_what_raises_is_tried_again_so_often(folder):
    seen = []

    def objective(config, learning_rate):
        seen.append((str(config), learning_rate))
        if seen.count(seen[0]) <= 3 and seen[-1] == seen[0]:
            raise MemoryError("others use the card")
        return scored(config, learning_rate)

    search = open_search(folder)
    search.run(objective, 3, retries=2)
    assert seen[:3] == [seen[0]] * 3
    assert seen.count(seen[0]) == 3
    reasons = [record.reason for record in search.trials if record.state == "FAIL"]
    assert reasons == ["MemoryError: others use the card"] * 2 + [
        "MemoryError: others use the card; given up after 3 attempts"
    ]
    assert len(complete(search)) == 3


def test_a_retry_that_works_counts_as_any(folder):
    seen = []

    def objective(config, learning_rate):
        seen.append((str(config), learning_rate))
        if len(seen) == 1:
            raise OSError("the disk was away")
        return scored(config, learning_rate)

    search = open_search(folder)
    search.run(objective, 2, retries=1)
    assert seen[0] == seen[1] == points(complete(search))[0]
    assert states(search).count("FAIL") == 1


def test_what_we_refuse_ourselves_is_not_tried_again(folder):
    seen = []

    def objective(config, learning_rate):
        seen.append(config)
        if len(seen) == 1:
            raise TrainingError("the loss is not finite")
        return scored(config, learning_rate)

    search = open_search(folder)
    search.run(objective, 2, retries=5)
    assert seen[0] not in seen[1:]


def test_a_failed_trial_knows_what_it_cost(folder):
    search = open_search(folder)
    asked = search.ask()
    search.fail(asked.number, "no luck", seconds=12.0)
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    assert stored.trials[asked.number].user_attrs["seconds"] == 12.0
