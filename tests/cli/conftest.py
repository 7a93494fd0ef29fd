"""A small search, run once by the command line itself, for the commands that look at runs."""

import csv
import json
import logging
import os
from pathlib import Path

import optuna
import pytest
from transformers.utils import logging as transformers_logging
from typer.testing import CliRunner

from peft_autoconfig.search import Search
from peft_autoconfig_cli.app import app


@pytest.fixture(scope="session", autouse=True)
def _loud_again():
    """Commands quieten Optuna and Transformers; whoever comes after hears them again."""
    before = optuna.logging.get_verbosity(), transformers_logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(before[0])
    transformers_logging.set_verbosity(before[1])
    transformers_logging.enable_progress_bar()
    logging.getLogger(Search.__module__).setLevel(logging.NOTSET)


def run(*arguments: object):
    """Runs a command in this process; returns what click makes of it."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: object) -> dict:
    """Runs a command that must succeed; returns what it writes with --json."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def letters(tmp_path_factory) -> Path:
    """A CSV file of a task that a tiny random model learns in a few steps: the first letter."""
    file = tmp_path_factory.mktemp("data") / "letters.csv"
    rows = [(f"{c}{a}{b}", c) for c in "xy" for a in "abcdef" for b in "abcdefgh"]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("word", "letter"), *rows])
    return file


@pytest.fixture(scope="session")
def settings(letters, tiny_folder) -> list[object]:
    """The flags of the small search but for its budget and folder."""
    return [
        *("--model", tiny_folder, "--train-file", letters),
        *("--text-columns", "word", "--label-column", "letter"),
        *("--max-steps", 8, "--batch-size", 16, "--max-length", 8),
        *("--learning-rates", "1e-2", "--max-params", 3000),
    ]


@pytest.fixture(scope="session")
def searched(settings, tmp_path_factory) -> tuple[Path, dict]:
    """The run folder of a finished search, and what the command wrote about it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = tmp_path_factory.mktemp("runs") / "letters"
    value = run_json("search", *settings, "--trials", 3, "--report-seeds", 1, "--output", folder)
    return folder, value
