"""The measures against formulas written here, and their behaviour on degenerate predictions."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from peft_autoconfig.errors import TaskError
from peft_autoconfig.tasks import Evaluation, Metric

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 2, 200)
ANSWERS = np.where(RNG.random(200) < 0.7, CLASSES, 1 - CLASSES)
THREE = RNG.integers(0, 3, 200)
THREE_ANSWERS = np.where(RNG.random(200) < 0.6, THREE, (THREE + 1) % 3)
VALUES = RNG.normal(size=200)
ESTIMATES = VALUES + RNG.normal(size=200)


def confusion(references, predictions):
    pairs = list(zip(references.tolist(), predictions.tolist(), strict=True))
    return {(i, j): pairs.count((i, j)) for i in range(3) for j in range(3)}


def f1(references, predictions, positive):
    counts = confusion(references, predictions)
    hits = counts[positive, positive]
    wrong = sum(n for (i, j), n in counts.items() if (i == positive) != (j == positive))
    return 2 * hits / (2 * hits + wrong)


def matthews(references, predictions):
    counts = confusion(references, predictions)
    tn, fp, fn, tp = counts[0, 0], counts[0, 1], counts[1, 0], counts[1, 1]
    return (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return (x @ y) / math.sqrt((x @ x) * (y @ y))


def ranks(values):
    return np.argsort(np.argsort(values)).astype(float)


@pytest.mark.parametrize(
    ("measures", "references", "predictions", "expected"),
    [
        (("accuracy",), THREE, THREE_ANSWERS, [(THREE == THREE_ANSWERS).mean()]),
        (
            ("accuracy", "f1"),
            CLASSES,
            ANSWERS,
            [(CLASSES == ANSWERS).mean(), f1(CLASSES, ANSWERS, 1)],
        ),
        (("matthews",), CLASSES, ANSWERS, [matthews(CLASSES, ANSWERS)]),
        (
            ("accuracy", "macro_f1"),
            THREE,
            THREE_ANSWERS,
            [
                (THREE == THREE_ANSWERS).mean(),
                sum(f1(THREE, THREE_ANSWERS, label) for label in range(3)) / 3,
            ],
        ),
        (
            ("pearson", "spearman"),
            VALUES,
            ESTIMATES,
            [pearson(VALUES, ESTIMATES), pearson(ranks(VALUES), ranks(ESTIMATES))],
        ),
    ],
)
def test_measures_equal_their_formulas(measures, references, predictions, expected):
    found = Metric(measures).evaluate(predictions=predictions, references=references)
    assert list(found.measures) == list(measures)
    assert list(found.measures.values()) == pytest.approx(expected)
    assert found.score == pytest.approx(sum(expected) / len(expected))
    assert found.reason is None


def test_predictions_may_be_lists():
    assert Metric().evaluate(predictions=[0, 1, 1], references=[0, 1, 0]).score == 2 / 3


@pytest.mark.parametrize("measures", [("accuracy", "f1"), ("matthews",), ("accuracy", "macro_f1")])
def test_constant_classes_have_a_finite_score(measures):
    found = Metric(measures).evaluate(predictions=[0, 0, 0, 0], references=[0, 1, 0, 1])
    assert math.isfinite(found.score)
    assert found.measures.get("f1", 0.0) == 0.0


@pytest.mark.parametrize(
    ("predictions", "references", "reason"),
    [
        ([0.5] * 4, [1.0, 2.0, 3.0, 4.0], "all predictions are equal"),
        ([0.1, 0.2], [1.0, 1.0], "all references are equal"),
        ([0.1, float("nan")], [1.0, 2.0], "some predictions are not finite"),
        ([0.1], [1.0], "at least two examples"),
    ],
)
def test_undefined_correlation_is_zero_with_a_reason(predictions, references, reason, caplog):
    found = Metric(("pearson", "spearman")).evaluate(predictions=predictions, references=references)
    assert found.score == 0.0
    assert found.measures == {"pearson": 0.0, "spearman": 0.0}
    assert reason in found.reason
    assert reason in caplog.text


@pytest.mark.parametrize("measures", [(), ("bleu",), ("accuracy", "pearson")])
def test_impossible_measures_are_refused(measures):
    with pytest.raises(TaskError, match="a metric needs measures"):
        Metric(measures)


def test_nothing_to_compare_is_refused():
    with pytest.raises(TaskError, match="at least one, got 0 predictions and 0 references"):
        Metric().evaluate(predictions=[], references=[])
    with pytest.raises(TaskError, match="got 1 predictions and 2 references"):
        Metric().evaluate(predictions=[1], references=[1, 0])


def test_evaluation_defaults_claim_nothing():
    assert Evaluation(0.5, {"accuracy": 0.5}) == Evaluation(0.5, {"accuracy": 0.5}, None, None)


MEASURE = """
from peft_autoconfig.tasks import Metric
for _ in range(5):
    assert Metric(("accuracy", "f1")).evaluate(predictions=[1, 0], references=[1, 0]).score == 1.0
"""


def test_processes_measure_at_once_and_leave_nothing_behind(tmp_path):
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    # A home that cannot hold a cache folder: measuring must not need one.
    (tmp_path / "home").write_text("")
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", MEASURE]
    workers = [
        subprocess.Popen(
            command, cwd=tmp_path / "work", env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    assert not list((tmp_path / "work").iterdir())
    assert not list((tmp_path / "temporary").glob("*/_measures"))
