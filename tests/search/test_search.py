"""A search in one process: its budget, its failures, its front, and what it takes up again."""

import json
import math

import optuna
import pytest
import torch

from peft_autoconfig.errors import ConfigError, RunError, SearchError
from peft_autoconfig.outcome import Outcome
from peft_autoconfig.run.folder import read_front
from peft_autoconfig.search import Search
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

from .search_cases import (
    PLAIN,
    SMALL,
    SPACE,
    complete,
    open_search,
    points,
    run_path,  # noqa: F401 (the fixture `folder`)
    scored,
    states,
)


def test_a_search_holds_the_number_of_trials_asked_for(folder):
    seen = []
    search = open_search(folder)
    front = search.run(scored, 8, callbacks=[lambda s, record: seen.append((s, record))])
    done = complete(search)
    assert len(done) == 8 == len(set(points(done)))
    assert seen == [(search, record) for record in done]
    assert front == search.front()
    for record in done:
        assert record.score == scored(record.config, record.learning_rate)
        assert record.num_params == SPACE.num_params(record.config)
        assert record.seconds is not None
        assert record.reason is None


def test_the_same_call_again_goes_on_to_the_same_end(folder):
    open_search(folder).run(scored, 4)
    again = open_search(folder)
    again.run(scored, 6)
    assert len(complete(again)) == 6
    again.run(pytest.fail, 6)  # nothing is left to do


def test_without_learning_rates_the_objective_gets_none(folder):
    search = open_search(folder, PLAIN)
    search.run(lambda config: scored(config), 3)
    assert {record.learning_rate for record in complete(search)} == {None}


@pytest.mark.parametrize("n_trials", [0, -1, True, 2.0, "10", SPACE.num_points + 1])
def test_impossible_budgets_are_refused_before_anything_runs(folder, n_trials):
    search = open_search(folder)
    with pytest.raises(ConfigError, match="n_trials"):
        search.run(pytest.fail, n_trials)
    assert search.trials == []


def test_a_space_is_searched_to_its_last_point(folder):
    tiny = SearchSpace(
        num_layers=1,
        hidden_size=4,
        serial_bottleneck_sizes=[0, 1],
        parallel_bottleneck_sizes=[0, 2],
        prefix_lengths=[0],
    )
    search = Search(tiny, folder, sampler=optuna.samplers.RandomSampler(seed=0))
    search.run(lambda config: 0.5, tiny.num_points)
    assert len(set(points(complete(search)))) == tiny.num_points == 3
    with pytest.raises(SearchError, match="All 3 points of the space"):
        search.ask()


def test_a_sampler_that_only_repeats_itself_is_stopped(folder, monkeypatch):
    class Stubborn(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.to_external_repr(1)

    monkeypatch.setattr("peft_autoconfig.search.handout.MAX_DRAWS", 5)
    search = Search(PLAIN, folder, sampler=Stubborn())
    with pytest.raises(SearchError, match="No valid and new configuration in 5 draws"):
        search.run(scored, 2)


# --- outcomes -----------------------------------------------------------------------------------


def test_an_outcome_is_kept_with_its_facts(folder):
    search = open_search(folder, PLAIN)
    outcome = Outcome(0.5, loss=1.25, seconds=9.0, details={"steps": 3, "path": folder})
    search.run(lambda config: outcome, 1)
    [record] = complete(search)
    assert (record.score, record.loss, record.seconds) == (0.5, 1.25, 9.0)
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    assert stored.trials[-1].user_attrs["details"] == {"steps": 3, "path": str(folder)}


def test_a_diverged_loss_does_not_fail_a_scored_trial(folder):
    search = open_search(folder, PLAIN)
    search.run(lambda config: Outcome(0.5, loss=math.nan), 1)
    assert [record.loss for record in complete(search)] == [None]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (math.nan, "finite score from the objective, got nan"),
        (math.inf, "finite score"),
        (None, "got NoneType"),
        ("0.5", "got str"),
        (True, "got bool"),
        (torch.tensor(0.5), "got Tensor"),
        (Outcome(math.nan), "finite score"),
        (Outcome(0.5, loss="low"), "must be real number, not str"),
        (Outcome(0.5, details={(1, 2): 3}), "keys must be str"),
        (10**400, "too large"),
    ],
)
def test_a_result_that_is_no_score_fails_its_trial(folder, result, reason):
    search = open_search(folder)
    trial = search.ask()
    record = search.tell(trial.number, result)
    assert record.state == "FAIL"
    assert reason in record.reason


def test_a_failing_trial_is_recorded_and_the_search_goes_on(folder):
    calls = []

    def objective(config, learning_rate):
        calls.append(config)
        if len(calls) == 2:
            raise MemoryError("out of memory, tried 2 GiB")
        return scored(config, learning_rate)

    search = open_search(folder)
    search.run(objective, 4)
    [failed] = [record for record in search.trials if record.state == "FAIL"]
    assert failed.reason == "MemoryError: out of memory, tried 2 GiB"
    assert len(complete(search)) == 4
    assert str(failed.config) not in {str(record.config) for record in complete(search)}


def test_a_search_whose_first_trials_all_fail_is_stopped(folder):
    search = open_search(folder)

    def objective(config, learning_rate):
        raise ValueError("no such column")

    with pytest.raises(SearchError, match=r"5 of 5 trials failed.*5 x ValueError: no such column"):
        search.run(objective, 20)
    assert states(search).count("FAIL") == 5
    failed = points([record for record in search.trials if record.state == "FAIL"])
    search.run(scored, 7)  # mended, the same run begins with what was not to blame
    assert points(complete(search))[:5] == failed
    assert len(complete(search)) == 7


def test_a_search_in_which_most_fail_is_stopped(folder):
    calls = []

    def objective(config, learning_rate):
        calls.append(config)
        return 0.5 if len(calls) < 5 else math.nan

    with pytest.raises(SearchError, match="6 of 10 trials failed"):
        open_search(folder).run(objective, 20)


# --- interruption, ask and tell -------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_trial_comes_first_when_the_search_goes_on(folder, interruption):
    def interrupted(config, learning_rate):
        raise interruption

    search = open_search(folder)
    with pytest.raises(interruption):
        search.run(interrupted, 5)
    assert states(search)[-2:] == ["FAIL", "WAITING"]
    taken = search.trials[-2]
    assert taken.reason == "interrupted"
    seen = []
    open_search(folder).run(lambda c, learning_rate: seen.append((c, learning_rate)) or 0.5, 2)
    assert seen[0] == (taken.config, taken.learning_rate)


def test_ask_and_tell(folder):
    search = open_search(folder)
    asked = [search.ask() for _ in range(3)]
    assert len(set(points(asked))) == 3
    search.tell(asked[0].number, 0.5)
    search.fail(asked[1].number, "no luck")
    search.hand_back(asked[2].number)
    by_number = {record.number: record for record in search.trials}
    assert [by_number[a.number].state for a in asked] == ["COMPLETE", "FAIL", "FAIL"]
    assert points([search.ask()]) == points(asked[2:])


def test_only_asked_trials_can_be_told(folder):
    search = open_search(folder, PLAIN)
    with pytest.raises(SearchError, match="no trial 7"):
        search.tell(7, 0.5)
    search.enqueue(SMALL)
    with pytest.raises(SearchError, match="waits in the queue"):
        search.tell(0, 0.5)


def test_queued_configurations_come_first_and_only_once(folder):
    search = open_search(folder)
    assert search.enqueue(SMALL, 5e-3)
    assert not search.enqueue(SMALL, 5e-3)
    assert search.enqueue(SMALL, 1e-3)
    assert points(search.trials) == [(str(SMALL), 5e-3), (str(SMALL), 1e-3)]
    search.run(scored, 2)
    assert points(complete(search)) == [(str(SMALL), 5e-3), (str(SMALL), 1e-3)]
    assert not search.enqueue(SMALL, 1e-3)
    with pytest.raises(ConfigError, match="learning rate"):
        search.enqueue(SMALL)


# --- the front ------------------------------------------------------------------------------------


def test_the_front_on_disk_is_the_front_of_the_trials(folder):
    search = open_search(folder, about={"num_base_params": 1000})
    search.run(scored, 12)
    front = search.front()
    assert [m["trial"] for m in read_front(folder)] == [r.number for r in front]
    for entry, record in zip(read_front(folder), front, strict=True):
        assert AutoPEFTConfig(**entry["config"]) == record.config
        assert entry["score"] == record.score
        assert entry["fraction"] == record.num_params / 1000
    for record in complete(search):
        dominated = any(
            other.score >= record.score and other.num_params <= record.num_params for other in front
        )
        assert dominated
    assert [r.num_params for r in front] == sorted({r.num_params for r in front})
    assert [r.score for r in front] == sorted({r.score for r in front})


def test_a_configuration_stands_in_the_front_at_its_best_rate(folder):
    search = open_search(folder)
    for rate, score in ((1e-3, 0.0), (5e-3, 0.7)):
        search.enqueue(SMALL, rate)
        search.tell(search.ask().number, score)
    assert [(r.learning_rate, r.score) for r in search.front()] == [(5e-3, 0.7)]


def test_best(folder):
    search = open_search(folder, PLAIN)
    with pytest.raises(SearchError, match="no complete trial"):
        search.best()
    search.run(scored, 6)
    assert search.best() == search.front()[-1]
    assert search.best(select="params") == search.front()[0]
    with pytest.raises(RunError, match="smallest has"):
        search.best(max_params=1)


# --- other searches -------------------------------------------------------------------------------


def test_another_space_or_task_is_refused_and_the_run_stays(folder):
    search = open_search(folder, about={"task": "rte"})
    search.run(scored, 2)
    before = (folder / "study.db").read_bytes()
    with pytest.raises(RunError, match=r"space\.learning_rates"):
        open_search(folder, PLAIN, about={"task": "rte"})
    with pytest.raises(RunError, match=r"about\.task is 'rte' there and 'mrpc' here"):
        open_search(folder, about={"task": "mrpc"})
    assert (folder / "study.db").read_bytes() == before
    assert len(complete(open_search(folder, about={"task": "rte"}))) == 2


def test_a_damaged_study_is_refused(folder):
    open_search(folder)
    (folder / "study.db").write_bytes(b"no data base" * 1000)
    with pytest.raises(RunError, match=r"study\.db cannot be read"):
        open_search(folder)


def test_odd_characters_in_the_path(folder):
    search = open_search(folder / "a {b} 50%20 ?c#d é")
    search.run(scored, 1)
    assert search.folder.study_file.exists()
    assert json.loads(search.folder.front_file.read_text())["front"]


def test_a_sampler_that_breaks_leaves_no_running_trial(folder):
    class Broken(optuna.samplers.RandomSampler):
        def sample_independent(self, *args, **kwargs):
            raise ZeroDivisionError("no fit")

    search = Search(SPACE, folder, sampler=Broken())
    with pytest.raises(ZeroDivisionError):
        search.run(scored, 2)
    assert states(search) == ["FAIL"]
    assert "no fit" in search.trials[0].reason


# --- our own sampler ------------------------------------------------------------------------------


def test_our_sampler_extends_the_front_and_goes_on(folder):
    Search(SPACE, folder, seed=3).run(scored, 14)
    again = Search(SPACE, folder, seed=3)
    again.run(scored, 20)
    assert states(again) == ["COMPLETE"] * 20
    assert len(set(points(again.trials))) == 20
    startup = [record.number for record in again.front() if record.number < 12]
    assert len(again.front()) > len(startup)


def test_our_sampler_retries_what_was_handed_back_first(folder):
    search = Search(SPACE, folder)
    taken = search.ask()
    search.tell(search.ask().number, 0.5)
    search.hand_back(taken.number)
    assert points([search.ask()]) == points([taken])
    assert points([search.ask()]) != points([taken])
