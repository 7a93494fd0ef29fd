import json

import numpy as np
import pytest
from peft import LoraConfig, PeftModel

from peft_autoconfig import AutoPEFTConfig, Search, SearchSpace, SerialAdapterConfig
from peft_autoconfig.errors import ConfigError, RunError, SearchError
from peft_autoconfig.front.baselines import baseline_methods, baseline_rates, constant_predictor
from peft_autoconfig.front.comparison import Comparison, Row, markdown_table
from peft_autoconfig.front.front import choose_members, train_front
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.training import Training, TrainingPlan
from peft_autoconfig.training.pretrained import FULL_FINE_TUNING

from ..conftest import HIDDEN_SIZE, NUM_LAYERS

PLAN = TrainingPlan(max_steps=3, batch_size=8, max_length=16)
CONFIG = SerialAdapterConfig(bottleneck_size=2)


@pytest.fixture
def training(tiny_folder, tiny_task):
    return Training(tiny_folder, tiny_task, PLAN)


def test_a_row_is_trained_by_other_seeds_than_the_searchs(training, tmp_path):
    steps = []
    comparison = Comparison(training, tmp_path / "results.json", seeds=(1, 2), notify=steps.append)
    row = comparison.row("serial", CONFIG, [1e-3, 1e-2])
    notified = [step.evaluated for step in steps]
    assert [(result.seed, result.test is None) for result in notified] == [
        (0, True),
        (0, True),
        (1, False),
        (2, False),
    ]
    chosen = max(notified[:2], key=lambda result: (result.dev, -result.loss))
    assert row.learning_rate == chosen.learning_rate
    assert row.num_params == NUM_LAYERS * (2 * HIDDEN_SIZE * 2 + 2 + HIDDEN_SIZE)
    model = training.train(CONFIG, learning_rate=row.learning_rate, seed=2)
    assert row.scores[1] == training.evaluate(model, "test").score


def test_stored_trainings_are_not_repeated(training, tmp_path, monkeypatch):
    file, folder = tmp_path / "results.json", tmp_path / "adapters" / "0"
    folder.parent.mkdir()
    first = Comparison(training, file, seeds=(1,)).row("a", CONFIG, [1e-3], save_to=folder)
    monkeypatch.setattr(Training, "train", lambda *_, **__: pytest.fail("trained again"))
    again = Comparison(training, file, seeds=(1,)).row("a", CONFIG, [1e-3], save_to=folder)
    assert again == first


def test_the_saved_adapter_is_that_of_the_best_seed(training, tmp_path):
    steps = []
    comparison = Comparison(
        training, tmp_path / "results.json", seeds=(1, 2, 3), notify=steps.append
    )
    (tmp_path / "adapters").mkdir()
    folder = tmp_path / "adapters" / "7"
    comparison.row("a", CONFIG, [1e-2], save_to=folder)
    results = [step.evaluated for step in steps]
    best = max(results, key=lambda result: (result.dev, -result.loss))
    loaded = PeftModel.from_pretrained(training.pretrained.fresh(FULL_FINE_TUNING, seed=9), folder)
    evaluation = training.evaluate(loaded, "dev")
    assert (evaluation.score, evaluation.loss) == (best.dev, best.loss)


def test_results_of_another_training_are_refused(training, tiny_folder, tiny_task, tmp_path):
    file = tmp_path / "results.json"
    Comparison(training, file, seeds=(1,)).row("a", CONFIG, [1e-3])
    before = file.read_text()
    other = Training(tiny_folder, tiny_task, TrainingPlan(max_steps=4))
    with pytest.raises(RunError, match="another model, task or plan"):
        Comparison(other, file, seeds=(1,))
    assert file.read_text() == before


@pytest.mark.parametrize("content", ["{", '{"format": 1}', "[]", '{"format": 1, "about": 3}'])
def test_a_damaged_file_is_refused(training, tmp_path, content):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(RunError, match=r"results\.json"):
        Comparison(training, file)


def test_seeds_must_be_new(training, tmp_path):
    for seeds in ((), (0, 1)):
        with pytest.raises(ConfigError, match="at least one seed"):
            Comparison(training, tmp_path / "results.json", seeds=seeds)


def test_the_front_is_saved_as_adapters_that_peft_loads(training, tmp_path):
    space = SearchSpace(
        num_layers=NUM_LAYERS,
        hidden_size=HIDDEN_SIZE,
        serial_bottleneck_sizes=[0, 1, 4],
        parallel_bottleneck_sizes=[0, 2],
        prefix_lengths=[0, 1],
        learning_rates=[1e-3, 1e-2],
    )
    search = Search(space, tmp_path / "run", about=training.about())
    search.run(training, 4)
    comparison = Comparison(training, tmp_path / "run" / "comparison.json", seeds=(1,))
    rows = train_front(search, comparison)
    assert [row.trial for row in rows] == [member.number for member in search.front()]
    for row, member in zip(rows, search.front(), strict=True):
        assert row.num_params == member.num_params
        base = training.pretrained.fresh(FULL_FINE_TUNING, seed=9)
        loaded = PeftModel.from_pretrained(base, tmp_path / "run" / "adapters" / str(row.trial))
        assert training.evaluate(loaded, "test").score == row.scores[0]
    config = AutoPEFTConfig.from_search(tmp_path / "run")
    assert config == search.best().config


def test_an_empty_front_is_refused(training, tmp_path):
    space = SearchSpace.paper(NUM_LAYERS, HIDDEN_SIZE)
    search = Search(space, tmp_path / "run", about=training.about())
    with pytest.raises(SearchError, match="no complete trial"):
        train_front(search, Comparison(training, tmp_path / "results.json"))


def test_members_are_spread_and_keep_the_best():
    front = [TrialRecord(number=n, state="COMPLETE", num_params=n, score=n) for n in range(9)]
    assert [m.number for m in choose_members(front, 3)] == [0, 4, 8]
    assert [m.number for m in choose_members(front, 1)] == [8]
    assert choose_members(front, None) == choose_members(front, 20) == front


def test_baselines_have_their_published_sizes():
    methods = baseline_methods(768)
    assert list(methods) == [
        "linear probe",
        "prefix 10",
        "LoRA r=8",
        "serial 48",
        "parallel 384",
        "full fine-tuning",
    ]
    assert baseline_rates(LoraConfig(), [1e-3, 1e-2]) == [1e-3, 1e-2]
    assert len(baseline_rates(FULL_FINE_TUNING, [1e-3, 1e-2])) == 2
    assert max(baseline_rates(FULL_FINE_TUNING, [1e-3, 1e-2])) < 1e-3


def test_constant_predictor_is_the_majority_class(tiny_task):
    labels = np.array(tiny_task.test.labels)
    majority = np.bincount(tiny_task.train.labels, minlength=3).argmax()
    evaluation = constant_predictor(tiny_task, "test")
    assert evaluation.score == pytest.approx((labels == majority).mean())
    assert evaluation.loss == pytest.approx(np.log(3), rel=0.02)


def test_table_names_mean_deviation_and_seeds():
    rows = [Row("b", 20_000, 1e-3, (0.5, 0.7)), Row("a", 0, None, (0.4,))]
    lines = markdown_table(rows, "accuracy", 1_000_000).splitlines()
    assert lines[2] == "| a | 0 | 0.00 |  | 0.4000 |  | 1 |"
    assert lines[3] == "| b | 20,000 | 2.00 | 0.001 | 0.6000 | 0.1414 | 2 |"


def test_results_are_plain_json(training, tmp_path):
    file = tmp_path / "results.json"
    Comparison(training, file, seeds=(1,)).row("lora", LoraConfig(r=1), [1e-3])
    stored = json.loads(file.read_text())
    assert stored["format"] == 1
    assert len(stored["evaluations"]) == 1
