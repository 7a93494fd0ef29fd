"""Every block of Python and every command of the docs and the README is run or checked.

Python: the blocks of a page run one after the other, in one name space, in a folder with a finished
run; ``bert-base-uncased`` is a tiny model there. Commands: their names and options must exist.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import transformers
from typer.main import get_command

from ..hub.conftest import make_run

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.joinpath("docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MODEL = "bert-base-uncased"
READERS = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoTokenizer")


def blocks(page, *languages):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for _, language, text in found if language in languages]


def names(pages):
    return [str(page.relative_to(ROOT)) for page in pages]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
WITH_COMMANDS = [page for page in PAGES if blocks(page, "bash")]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, tiny_folder):
    """A folder with a finished run, and the same as it lies on the Hub."""
    folder = tmp_path_factory.mktemp("docs")
    run = folder / "runs" / f"{MODEL}-rte"
    search = make_run(run, model=tiny_folder)
    adapters = sorted((run / "adapters").iterdir())
    if not (run / "adapters" / "3").exists():
        shutil.copytree(adapters[-1], run / "adapters" / "3")
    for adapter in (run / "adapters").iterdir():
        file = adapter / "adapter_config.json"
        fields = json.loads(file.read_text()) | {"base_model_name_or_path": tiny_folder}
        file.write_text(json.dumps(fields))
    pushed = folder / "user" / "rte-adapter"
    shutil.copytree(run / "adapters" / str(search.best().number), pushed)
    shutil.copy(run / "front.json", pushed)
    return folder


@pytest.fixture
def tiny_hub(monkeypatch, tiny_folder):
    """Lets the name of a model on the Hub stand for a tiny one."""
    for name in READERS:
        reader = getattr(transformers, name)
        original = reader.from_pretrained

        def read(source, *arguments, original=original, **options):
            return original(tiny_folder if source == MODEL else source, *arguments, **options)

        monkeypatch.setattr(reader, "from_pretrained", read)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=names(WITH_PYTHON))
def test_python_runs(page, workplace, tiny_hub, monkeypatch, tmp_path):
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if any("import ray" in text for text in blocks(page, "python")):
        pytest.skip("it starts a cluster of Ray, with a GPU for each worker")
    space = {"__name__": "docs"}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), space)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names(WITH_COMMANDS))
def test_commands_exist(page):
    for text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            check(shlex.split(line, comments=True))


def check(words):
    while "&&" in words:
        check(words[: words.index("&&")])
        words = words[words.index("&&") + 1 :]
    if words[:1] == ["exec"]:
        words = words[1:]
    if not words or words[0] == "export":
        return
    if words[:2] == ["accelerate", "launch"]:
        words = words[2:]
    if words[0] == "-m":
        words = ["python", *words]
    if words[:2] == ["python", "-m"] and words[2] == "peft_autoconfig_cli":
        words = ["peft-autoconfig", *words[3:]]
    program = Path(words[0]).name
    if program == "peft-autoconfig":
        check_options(words[1:])
    elif program.endswith(".py") or (program == "python" and words[1].endswith(".py")):
        script = next(word for word in words if word.endswith(".py"))
        assert (ROOT / script).is_file(), script
    elif words[:2] == ["python", "-m"] and words[2].startswith("peft_autoconfig"):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file()
    else:
        known = ("pip", "python", "hf", "pytest", "git", "optuna-dashboard", "mkdocs", "pre-commit")
        assert program in known, words


def check_options(words):
    from peft_autoconfig_cli.app import app

    command = get_command(app).commands[words[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words[1:]:
        if word.startswith("-"):
            assert word.split("=")[0] in options | {"--help"}, (words[0], word)


def test_links_to_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), (page.name, target)
