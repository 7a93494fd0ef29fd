"""The table in one call: how many trainings it takes, and what people see of them."""

import io

import optuna
import pytest
from rich.console import Console

from peft_autoconfig import Search, SearchSpace
from peft_autoconfig.front.comparison import Evaluated, TableStep
from peft_autoconfig.front.table import compare_front, num_trainings
from peft_autoconfig.front.view import TableView
from peft_autoconfig.training import Training, TrainingPlan

PLAN = TrainingPlan(max_steps=1, batch_size=8, max_length=8)


@pytest.fixture(scope="module")
def training(tiny_folder, tiny_task):
    return Training(tiny_folder, tiny_task, PLAN)


@pytest.fixture
def search(training, tmp_path):
    space = SearchSpace.from_model(training.model_config, learning_rates=(1e-3,), max_params=3000)
    sampler = optuna.samplers.RandomSampler(seed=0)
    search = Search(space, tmp_path / "run", about=training.about(), sampler=sampler)
    search.run(lambda config, learning_rate: space.num_params(config) / 3000, 3)
    return search


def test_the_count_is_what_is_trained_and_nothing_twice(search, training):
    options = {"num_seeds": 1, "learning_rates": (1e-3, 5e-3), "limit": 1}
    total = num_trainings(search, training, **options)
    trained = []
    rows = compare_front(search, training, notify=trained.append, **options)
    assert [step.done for step in trained] == list(range(1, total + 1))
    assert {(step.is_new, step.total) for step in trained} == {(True, total)}
    assert trained[0].name == rows[1].name
    assert rows[0].name == "constant predictor"
    assert rows[1].trial == search.best().number
    assert search.folder.adapter_folder(search.best().number).is_dir()
    assert {len(row.scores) for row in rows[1:]} == {1}
    again = []
    assert compare_front(search, training, notify=again.append, **options) == rows
    assert [step.evaluated for step in again] == [step.evaluated for step in trained]
    assert not any(step.is_new for step in again)


def step(done: int, test: float | None, total: int, *, is_new: bool = True) -> TableStep:
    evaluated = Evaluated("{}", 1e-3, 1, 4096, dev=0.5, loss=0.7, test=test, seconds=2.0)
    return TableStep("LoRA r=8", evaluated, is_new, done, total)


def test_a_log_has_a_line_for_each_training():
    console = Console(file=io.StringIO())
    with TableView(console=console) as view:
        view(step(1, None, 4, is_new=False))
        view(step(2, None, 4))
        view(step(4, 0.625, 4))
    assert console.file.getvalue().splitlines() == [
        "report 2/4: LoRA r=8, rate 0.001, seed 1: dev 0.5000, about 4 s left",
        "report 4/4: LoRA r=8, rate 0.001, seed 1: dev 0.5000, test 0.6250",
    ]


def test_a_terminal_has_a_bar_and_a_silent_view_nothing():
    shown = {}
    for enabled in (True, False):
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with TableView(console=console, enabled=enabled) as view:
            view(step(1, 0.5, 9))
        shown[enabled] = console.file.getvalue()
    assert "1/9" in shown[True]
    assert shown[False] == ""
