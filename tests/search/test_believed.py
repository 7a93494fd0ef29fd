"""The front of a search: what a model of the scores believes, not what luck has lifted."""

import json
from dataclasses import replace

import numpy as np
import optuna

from peft_autoconfig.run.folder import read_front, select_member
from peft_autoconfig.sampler import believed_front
from peft_autoconfig.search.progress import progress_of

from .search_cases import (
    SPACE,
    open_search,
    run_path,  # noqa: F401 (the fixture `folder`)
    scored,
    states,
)


def noisy(seed):
    draws = np.random.default_rng(seed)
    return lambda config, learning_rate: scored(config, learning_rate) + 0.2 * draws.normal()


def test_it_is_that_of_the_study_and_members_are_trials(folder):
    search = open_search(folder)
    assert search.front() == []
    search.fail(search.ask().number, "no memory")
    assert search.front() == []
    search.run(noisy(0), 20)
    running = search.ask()
    found = search.front()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    believed = believed_front(study, SPACE)
    assert [(m.number, m.mean, m.deviation, m.confidence) for m in found] == [
        (b.number, b.score, b.deviation, b.confidence) for b in believed
    ]
    bare = [replace(m, mean=None, deviation=None, confidence=None) for m in found]
    assert bare == [search.trials[member.number] for member in found]
    assert states(search)[running.number] == "RUNNING"  # nothing was changed


def test_everybody_sees_the_same_front(folder):
    search = open_search(folder)
    search.run(noisy(1), 20)
    means = {record.number: record.mean for record in search.front()}
    assert {member["trial"]: member["mean"] for member in read_front(folder)} == means
    assert {record.number: record.mean for record in progress_of(search).front} == means
    table = search.to_pandas()
    assert set(table.index[table.on_front]) == {*means}
    assert table["mean"].dropna().to_dict() == means
    # of its members, what is believed decides, not the one training
    assert search.best().number == max(means, key=means.get)
    assert select_member(folder)["trial"] == search.best().number


def test_it_follows_the_trials_that_others_finish(folder):
    search, other = open_search(folder), open_search(folder, seed=1)
    search.run(noisy(2), 4)
    before = search.front()
    other.run(noisy(3), 8)
    assert before != search.front() == other.front()


def test_a_front_of_an_earlier_version_is_chosen_from_by_scores(folder):
    search = open_search(folder)
    search.run(scored, 8)
    file = folder / "front.json"
    stored = json.loads(file.read_text())
    for member in stored["front"]:
        for name in ("mean", "deviation", "confidence"):
            del member[name]
    file.write_text(json.dumps(stored))
    assert select_member(folder)["score"] == max(m["score"] for m in stored["front"])
