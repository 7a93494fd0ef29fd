"""The example as people run it: from a file of their own to adapters that plain PEFT loads."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from peft import AutoPeftModelForSequenceClassification

from peft_autoconfig import AutoPEFTConfig

EXAMPLES = Path(__file__).parents[1] / "examples"


OPINIONS = {"good": ("I love this", "What a wonderful"), "bad": ("I hate this", "What an awful")}
THINGS = "book film song meal phone chair lamp coat house garden road bridge story game".split()


@pytest.fixture
def reviews(tmp_path):
    """A CSV file of a task that the embedded model learns in a few steps."""
    file = tmp_path / "reviews.csv"
    rows = [
        (f"{opening} {thing}.", stars)
        for stars, openings in OPINIONS.items()
        for opening in openings
        for thing in THINGS
    ]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("review", "stars"), *rows])
    return file


def run_example(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "search.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_a_search_on_a_file_of_ones_own_and_once_more(reviews, tmp_path):
    run = tmp_path / "run"
    command = [
        *("--train-file", reviews, "--text-columns", "review", "--label-column", "stars"),
        *("--epochs", 20, "--max-steps", 15, "--batch-size", 8, "--max-length", 16),
        *("--learning-rates", 5e-3, "--max-params", 50_000),
        *("--trials", 3, "--report-seeds", 1, "--output", run),
    ]
    first = run_example(*command)
    assert first.returncode == 0, first.stderr[-2000:]
    front = json.loads((run / "front.json").read_text())["front"]
    assert f"Front of 3 trials on {reviews.stem}" in first.stdout
    for name in ("constant predictor", "linear probe", "LoRA r=8", "full fine-tuning"):
        assert f"| {name} |" in first.stdout
    for member in front:
        adapter = run / "adapters" / str(member["trial"])
        model = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=2)
        kept = model.peft_config["default"]
        assert kept.serial_bottleneck_size == member["config"]["serial_bottleneck_size"]
    assert (
        AutoPEFTConfig.from_search(run).layers_to_transform
        == (front[-1]["config"]["layers_to_transform"])
    )

    files = [run / "front.json", run / "comparison.json"]
    before = [file.read_text() for file in files]
    again = run_example(*command)
    assert again.stdout == first.stdout
    assert [file.read_text() for file in files] == before

    other = run_example(*command[:-2], "--output", run, "--batch-size", 4)
    assert other.returncode == 1
    assert "batch_size" in other.stderr
    assert [file.read_text() for file in files] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "rtee"], "rte"),
        (["--train-file", "no-such-file.csv"], "no-such-file.csv"),
        (["--task", "rte", "--data-dir", "no-such-folder"], "no-such-folder"),
        (["--batch-size", "0"], "batch_size must be above 0"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--learning-rates", "-1"], "-1"),
        (["--max-params", "3"], "3"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(arguments, message, tmp_path):
    result = run_example(*arguments, "--output", tmp_path / "run")
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
