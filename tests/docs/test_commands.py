"""Every command of the docs and the README: ours are run, of others it is seen what they name.

They run where there is a finished run, with tiny models and small data under the names that the
pages use, searches with a small budget behind their own options. Not run is what installs, starts a
server or logs in, and the scripts, which `tests/test_examples.py` runs.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peft_autoconfig_cli.app import app

from ..hub.conftest import api, server  # noqa: F401 (fixtures)
from .pages import PAGES, ROOT, commands, names

WITH_COMMANDS = [page for page in PAGES if commands(page)]
SMALL = [
    *("--trials", "2", "--report-seeds", "0", "--max-steps", "24", "--batch-size", "16"),
    *("--max-length", "8", "--learning-rates", "1e-2", "--output", "small"),
]
OTHERS = ("pip", "python", "hf", "pytest", "git", "optuna-dashboard", "mkdocs", "pre-commit")


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names(WITH_COMMANDS))
def test_commands_do_what_they_say(page, stage, api, monkeypatch):  # noqa: F811
    # the module: the function of that name hides it
    monkeypatch.setattr(import_module("peft_autoconfig.hub.push"), "HfApi", lambda: api)
    for number, words in enumerate(commands(page)):
        if words[0] == "peft-autoconfig":
            run(words[1:], stage / str(number))
        else:
            look_at(words)


def run(words, folder):
    """Runs one of our commands; a search in a folder of its own."""
    command, *options = words
    if command == "search":
        options = [*without(options, "--storage"), *SMALL[:-1], str(folder)]
        if "--task" not in options and not {"--train-file", "--config"} & set(options):
            # the embedded task takes a real model to be learned
            options += ["--task", "rte", "--model", "bert-base-uncased"]
        if "--track" in options and find_spec("tensorboard") is None:
            options = without(options, "--track")
    if command == "train":
        options += ["--max-steps", "2"]
    result = CliRunner().invoke(app, [command, *options])
    assert result.exit_code == 0, (words, result.output)
    assert result.stdout.strip(), words


def without(options, name):
    """Returns options without one and its value."""
    if name not in options:
        return options
    place = options.index(name)
    return options[:place] + options[place + 2 :]


def look_at(words):
    """Makes sure that a command of others names programs, scripts and modules that exist."""
    program = Path(words[0]).name
    if program == "export":
        return
    if program.endswith(".py") or (program == "python" and words[1].endswith(".py")):
        script = next(word for word in words if word.endswith(".py"))
        assert (ROOT / script).is_file(), script
    elif words[:2] == ["python", "-m"] and words[2].startswith("peft_autoconfig"):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file()
    else:
        assert program in OTHERS, words
