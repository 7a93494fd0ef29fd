"""Trials as curves in trackers, by the names that Accelerate has for them."""

import importlib.util

import pytest
from accelerate.tracking import GeneralTracker

from peft_autoconfig.errors import ConfigError
from peft_autoconfig.search.trackers import Trackers

from .search_cases import complete, open_search, run_path, scored  # noqa: F401


class Memory(GeneralTracker):
    """A tracker of one's own, which remembers."""

    name = "memory"
    requires_logging_directory = False

    def __init__(self):
        self.settings, self.logged, self.finished = {}, [], 0
        super().__init__()

    @property
    def tracker(self):
        return self.logged

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None, **kwargs):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_every_complete_trial_is_a_point_once(folder):
    search = open_search(folder, about={"model": "tiny", "plan": {"epochs": 3}})
    search.run(scored, 2)
    memory = Memory()

    def objective(config, learning_rate):
        if len(search.trials) == 4:
            raise RuntimeError("boom")
        return scored(config, learning_rate)

    with Trackers([memory], search) as trackers:
        search.pilot(objective, -1.0, callbacks=[trackers])
        search.run(objective, 5, callbacks=[trackers])
    done = complete(search)
    assert [step for step, _ in memory.logged] == [record.number for record in done]
    for (_, values), record in zip(memory.logged, done, strict=True):
        assert values["search/score"] == record.score
        assert values["search/num_params"] == record.num_params
    best = [values["search/best_score"] for _, values in memory.logged]
    assert best == sorted(best)
    assert best[-1] == search.best().score
    assert memory.logged[-1][1]["search/front_size"] == len(search.front())
    assert memory.settings["model"] == "tiny"
    assert memory.settings["plan"] == '{"epochs": 3}'
    assert memory.finished == 1


def test_without_names_nothing_happens(folder):
    search = open_search(folder)
    with Trackers([], search) as trackers:
        search.run(scored, 1, callbacks=[trackers])
    assert not (folder / "trackers").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("tensorbord", "is unknown"), ("aim", "pip install aim")]
)
def test_what_is_not_there_is_refused_before_anything_runs(folder, name, message):
    if importlib.util.find_spec("aim"):
        pytest.skip("aim is installed")
    with pytest.raises(ConfigError, match=message):
        Trackers([name], open_search(folder))


def test_tensorboard_gets_files(folder):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    search = open_search(folder)
    with Trackers(["tensorboard"], search) as trackers:
        search.run(scored, 2, callbacks=[trackers])
    events = next((folder / "trackers").rglob("events.out.*"))
    curves = EventAccumulator(str(events.parent)).Reload()
    assert [e.value for e in curves.Scalars("search/num_params")] == [
        record.num_params for record in complete(search)
    ]


def test_weights_and_biases_works_offline(folder, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder.parent))
    search = open_search(folder)
    with Trackers(["wandb"], search) as trackers:
        search.run(scored, 1, callbacks=[trackers])
    assert list(folder.parent.rglob("*.wandb"))
