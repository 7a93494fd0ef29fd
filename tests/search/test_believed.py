"""The front that a model of the scores believes in, asked of a search."""

import numpy as np
import optuna

from peft_autoconfig.sampler import believed_front

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
    assert search.believed_front() == []
    search.fail(search.ask().number, "no memory")
    assert search.believed_front() == []
    search.run(noisy(0), 20)
    running = search.ask()
    found = search.believed_front()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    assert found == believed_front(study, SPACE)
    assert {search.trials[member.number].state for member in found} == {"COMPLETE"}
    assert [m.num_params for m in found] == [search.trials[m.number].num_params for m in found]
    assert states(search)[running.number] == "RUNNING"  # nothing was changed
