"""Proposals are made while others work: nobody waits for them, and none is given out twice."""

import json

import optuna
import pytest
from optuna.trial import TrialState

from peft_autoconfig.run.folder import read_front
from peft_autoconfig.sampler import BayesianSampler
from peft_autoconfig.search import Search
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


class Watched(optuna.samplers.RandomSampler):
    """Does something in the middle of each proposal, and notes what is known at its begin."""

    def __init__(self, during=lambda: None, first=None):
        super().__init__(seed=1)
        self.during, self.first = during, first
        self.pending = []

    def infer_relative_search_space(self, study, trial):
        others = study.get_trials(states=(TrialState.RUNNING,))
        self.pending.append([t.number for t in others if t.params])
        return SPACE.distributions

    def sample_relative(self, study, trial, search_space):
        during, self.during = self.during, lambda: None
        during()
        first, self.first = self.first, None
        if first is not None:
            return first
        return {
            name: self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }


@pytest.fixture
def pair(folder):
    """A search whose sampler is watched, and another worker's of the same run."""
    sampler = Watched()
    return Search(SPACE, folder, sampler=sampler), open_search(folder, seed=2), sampler


def test_others_ask_and_tell_while_a_proposal_is_made(pair):
    search, other, sampler = pair
    asked = other.ask()
    sampler.during = lambda: other.tell(asked.number, 0.5)
    mine = search.ask()
    assert [record.number for record in complete(search)] == [asked.number]
    assert points([mine]) != points([asked])
    assert states(search) == ["COMPLETE", "RUNNING"]


def test_what_was_handed_out_meanwhile_is_not_handed_out_again(pair):
    search, other, sampler = pair
    taken = []

    def ask():
        taken.append(other.ask())
        sampler.first = SPACE.params(taken[0].config, taken[0].learning_rate)

    sampler.during = ask
    mine = search.ask()
    assert len(sampler.pending) == 2, "the first proposal was the other's"
    assert points([mine]) != points(taken)
    assert states(search) == ["RUNNING", "RUNNING"]


def test_a_proposal_that_was_overtaken_is_made_with_the_others_in_sight(pair, monkeypatch):
    monkeypatch.setattr("peft_autoconfig.search.handout.QUICK_SECONDS", 0)
    search, other, sampler = pair
    sampler.during = other.ask
    mine = search.ask()
    assert (mine.number, sampler.pending) == (0, [[], [1]])


def test_the_budget_counts_a_trial_from_before_its_proposal(pair):
    search, other, sampler = pair
    seen = []

    def count():
        trials = other._store.snapshot()
        seen.append((len(trials), trials.count(TrialState.RUNNING), trials.num_configurations()))

    sampler.during = count
    search.ask()
    assert seen == [(1, 1, 0)]


def test_a_trial_that_was_taken_back_during_its_proposal_is_replaced(pair):
    search, other, sampler = pair
    sampler.during = lambda: other.hand_back(0, "thought lost")
    assert search.ask().number == 1
    assert states(search) == ["FAIL", "RUNNING"]


def test_a_proposal_that_fails_leaves_no_trial_behind(pair):
    search, _, sampler = pair
    sampler.during = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        search.ask()
    assert [(r.state, r.reason) for r in search.trials] == [
        ("FAIL", "no proposal: ZeroDivisionError('division by zero')")
    ]
    assert search.ask().number == 1


def test_what_other_tools_queue_is_completed_or_refused(folder):
    search = open_search(folder, PLAIN)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    study.enqueue_trial({"prefix_length": 4, "layer_0": 1})
    study.enqueue_trial({"layer_0": 0, "layer_1": 0})
    first, second = search.ask(), search.ask()
    assert (first.config.prefix_length, first.number) == (4, 0)
    assert states(search)[1] == "PRUNED"
    assert second.number == 2


def test_all_workers_at_once_get_different_points_of_the_design(folder):
    searches = [Search(SPACE, folder, sampler=BayesianSampler(SPACE, seed=0)) for _ in range(3)]
    asked = [search.ask() for search in searches for _ in range(3)]
    assert len(set(points(asked))) == 9
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db").trials
    assert [t.params for t in stored] == [SPACE.params(r.config, r.learning_rate) for r in asked]


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler"])
def test_samplers_of_optuna_see_the_results(folder, sampler):
    search = Search(SPACE, folder, sampler=getattr(optuna.samplers, sampler)(seed=0))
    search.run(scored, 14)
    assert len(set(points(complete(search)))) == 14


def test_a_sampler_cannot_change_the_study(folder):
    class Meddling(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            study.enqueue_trial({})

    with pytest.raises(NotImplementedError, match="draws one trial"):
        Search(SPACE, folder, sampler=Meddling()).ask()


# --- the front on disk ----------------------------------------------------------------------------


def test_an_older_front_does_not_replace_a_newer_one(pair, monkeypatch):
    search, other, _ = pair
    mine, theirs = search.ask(), other.ask()
    with monkeypatch.context() as patch:
        follow = search._front_file.follow

        def late(known, read):
            other.tell(theirs.number, 0.9)
            follow(known, read)

        patch.setattr(search._front_file, "follow", late)
        search.tell(mine.number, 0.5)
    found = [member["trial"] for member in read_front(search.folder.path)]
    assert found == [record.number for record in search.front()]
    assert theirs.number in found


def test_a_front_that_stays_is_not_written_again(folder):
    search = open_search(folder)
    larger = AutoPEFTConfig(prefix_length=4)
    for config in (SMALL, larger):
        search.enqueue(config, 1e-3)
    first, second = search.ask(), search.ask()
    search.tell(first.number, 0.9)
    search.folder.front_file.write_text("{}")
    search.tell(second.number, 0.1)
    assert json.loads(search.folder.front_file.read_text()) == {}
    search.run(pytest.fail, 2)  # at its end a search leaves nothing to chance
    assert [member["trial"] for member in read_front(folder)] == [first.number]
