"""The tree tells the story, and these tests keep it so: who imports whom, sizes, light imports."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peft_autoconfig

PACKAGE = Path(peft_autoconfig.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each module or sub-package may import of ours; inside a sub-package everything is free.
# The names of the rows run from the bottom of the house to its top.
ALLOWED = {
    "errors": set(),
    "outcome": set(),
    "run": {"errors"},
    "tuner": {"errors"},
    "exchange": {"errors", "tuner"},
    # `from_search` reads a front and `save_pretrained` adds to a model card, inside the methods.
    "tuner.config": {"errors", "run", "exchange"},
    "bayes": {"errors"},
    "space": {"errors", "tuner"},
    "sampler": {"errors", "space", "bayes"},
    "tasks": {"errors"},
    # Not the search: it knows an objective as a callable.
    "training": {"errors", "outcome", "run", "tuner", "tasks"},
    "search": {"errors", "outcome", "run", "tuner", "space", "sampler"},
    "front": {"errors", "run", "tuner", "tasks", "training", "search"},
    # It reads results and trains nothing.
    "report": {"errors", "run", "tuner", "bayes", "space", "search"},
    "hub": {"errors", "run", "report", "search", "space", "tasks"},
    # What flags, a file or a run folder say a search is.
    "recipe": {"errors", "run", "tasks", "training", "search", "space", "front"},
    # The face of the package, which shows what is inside.
    "__init__": {"errors", "outcome", "space", "tuner", "search"},
}
HEAVY = ("botorch", "gpytorch", "optuna", "datasets", "matplotlib", "plotly")
MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60
WITHOUT_A_SUBJECT = {"utils", "helpers", "common", "base", "misc"}


def name_of(file: Path) -> str:
    """Returns the dotted name of a module inside the package."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(file: Path) -> Iterator[str]:
    """Yields the dotted names, inside the package, of all that a module imports of ours."""
    here = file.relative_to(PACKAGE).parent.parts
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (PACKAGE.name, *here[: len(here) - node.level + 1])
            module = (node.module,) if node.module else ()
            targets = [".".join((*base, *module, alias.name)) for alias in node.names]
        else:
            continue
        for target in targets:
            if target.split(".")[0] == PACKAGE.name:
                yield target.partition(".")[2]


def row_of(module: str) -> str:
    """Returns the row that rules a module: its own, else that of its sub-package."""
    return module if module in ALLOWED else module.split(".")[0]


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_follow_the_house(file):
    module = name_of(file)
    row = row_of(module)
    assert row in ALLOWED, f"say in ALLOWED what {module} may import"
    free = ALLOWED[row] | {module.split(".")[0]}
    wrong = {target for target in imports_of(file) if target.split(".")[0] not in free}
    assert not wrong, f"{module} may import {sorted(ALLOWED[row])} of ours, not {sorted(wrong)}"


def test_the_table_has_no_circle():
    seen: set[str] = set()
    for row, allowed in ALLOWED.items():
        upwards = {name for name in allowed if name not in seen}
        # Each row looks down only; `__init__` comes last and sees all.
        assert not upwards, f"{row} may import {sorted(upwards)}, which stand above it"
        seen.add(row.split(".")[0])


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_sizes_and_names(file):
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES_OF_FILE, f"{file.name} has {lines} lines: it is two nouns"
    assert file.stem not in WITHOUT_A_SUBJECT
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_LINES_OF_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", [f for f in MODULES if f.stem != "cli"], ids=name_of)
def test_the_library_never_prints(file):
    calls = [node.func for node in ast.walk(tree_of(file)) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_nothing_is_unpickled(file):
    assert "pickle" not in {
        name.split(".")[0]
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_public_names_exist(file):
    name = name_of(file)
    module = importlib.import_module(
        PACKAGE.name if name == "__init__" else f"{PACKAGE.name}.{name}"
    )
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"


def test_importing_the_package_and_taking_a_winner_is_light(tmp_path):
    code = (
        "import sys\n"
        "from peft_autoconfig import AutoPEFTConfig\n"
        "try: AutoPEFTConfig.from_search(sys.argv[1])\n"
        "except RuntimeError: print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert {"torch", "peft"} <= set(done.stdout.split())
    assert not set(done.stdout.split()).intersection(HEAVY)
