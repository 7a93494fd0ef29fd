"""The pytest plugin that makes PEFT's tests run on our methods; loaded by `run.py`.

Before collection it puts our rows (`our_cases`) into the tables that PEFT's tests are parametrised
by, then drops every test that has none of them. Three things in PEFT's tests name PEFT's own
classes, where a method of theirs would have been entered by hand, and are dealt with here:

* models with transformers' Conv1D and mixed batches are tested for listed classes only, to which
  ours are added; a check meant for one method of theirs leaves out or changes tests of all;
* `diffusers`, which one helper imports for tests that are not ours, is stood in for if missing;
* settings of the environment: one line of results per test goes to the file that
  CONFORMANCE_RESULTS names, and CONFORMANCE_QUICK=1 leaves only the first model of each table.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any
from unittest import mock

import pytest
from our_cases import is_ours, tables
from tiny_models import MORE_MODELS
from upstream import PACKAGE

RESULTS = "CONFORMANCE_RESULTS"
QUICK = "CONFORMANCE_QUICK"
# Checks of what a method of theirs cannot do; the second takes every method for that one, the
# third those with "prefix" in their names.
NOT_FOR_US = ("_skip_if_conv1d_not_supported", "check_beft_config", "skip_deberta_pt_tests")
# Not parametrised, but goes through all that is registered, and so through what we register.
ALSO_OURS = ("test_from_peft_type",)


def pytest_configure(config: pytest.Config) -> None:
    """Imports PEFT's test modules and puts our rows into their tables."""
    rows = tables()
    names = ("testing_common", *rows)
    pytest.register_assert_rewrite(*(f"{PACKAGE}.{name}" for name in names))
    with _diffusers():
        common, *modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in names]
    for module, replacements in zip(modules, rows.values(), strict=True):
        for table, values in replacements.items():
            _replace(module, table, values)
        for table in _tables_of_models(module):
            models = [*getattr(module, table), *MORE_MODELS.get(table, ())]
            _replace(module, table, models[:1] if os.environ.get(QUICK) else models)
        for check in NOT_FOR_US:
            for place in (common, module):
                if hasattr(place, check):
                    setattr(place, check, _skip_nothing)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drops the tests that PEFT runs on its own methods only."""
    kept = [
        item for item in items if item.name in ALSO_OURS or any(map(is_ours, _parameters(item)))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Lets our classes pass for LoRA where PEFT lists who supports mixed batches."""
    if "mixed_adapter_batches" not in item.name or not isinstance(item, pytest.Function):
        return (yield)
    with ExitStack() as stack:
        for module in (sys.modules[f"{PACKAGE}.testing_common"], item.module):
            if hasattr(module, "LoraConfig"):
                stack.enter_context(mock.patch.object(module, "LoraConfig", _LoraOrOurs))
        return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes one line for a test that was skipped, failed or came to its end."""
    if report.when != "call" and report.passed:
        return
    # the parameters may hold a "/" as well
    module, _, test = report.nodeid.partition("::")
    name = f"{module.rpartition('/')[2]}::{test}"
    line = {"test": name, "outcome": report.outcome, "cause": ""}
    if report.skipped and isinstance(report.longrepr, tuple):
        line["cause"] = str(report.longrepr[2]).removeprefix("Skipped: ")
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        line["cause"] = str(getattr(crash, "message", report.longrepr))
    line["seconds"] = f"{report.duration:.2f}"
    with open(os.environ[RESULTS], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


class _EqualToOurs(type):
    def __eq__(cls, other: object) -> bool:
        return cls is other or is_ours(other)

    __hash__ = type.__hash__


class _LoraOrOurs(metaclass=_EqualToOurs):
    """Equal to each of our classes, as in ``config_cls in (LoraConfig,)``."""


def _skip_nothing(*_: Any) -> None:
    pass


@contextmanager
def _diffusers() -> Iterator[None]:
    """Lets PEFT's tests import the name that they need, if `diffusers` is not installed."""
    missing = importlib.util.find_spec("diffusers") is None
    if missing:
        stand_in = ModuleType("diffusers")
        stand_in.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})  # type: ignore
        sys.modules["diffusers"] = stand_in
    try:
        yield
    finally:
        # who asks later whether it is installed must not find the stand-in
        if missing:
            del sys.modules["diffusers"]


def _tests(module: ModuleType) -> Iterator[tuple[str, list[pytest.Mark]]]:
    """Yields the name and the parametrisations of every test of a module."""
    places = [module, *(value for value in vars(module).values() if isinstance(value, type))]
    for place in places:
        for name, value in vars(place).items():
            if isinstance(value, FunctionType):
                marks = getattr(value, "pytestmark", [])
                yield name, [mark for mark in marks if mark.name == "parametrize"]


def _replace(module: ModuleType, table: str, values: list[Any]) -> None:
    if table.startswith("test_"):
        marks = [mark for name, marks in _tests(module) if name == table for mark in marks]
        found = [mark for mark in marks if "config" in mark.args[0]]
    else:
        old = getattr(module, table)
        found = [mark for _, marks in _tests(module) for mark in marks if mark.args[1] is old]
    if not found:
        raise pytest.UsageError(
            f"{module.__name__} has no tests parametrised by {table}: this PEFT version arranges "
            "its tests in another way; tests/conformance/our_cases.py has to follow."
        )
    for mark in found:
        # a mark is a frozen dataclass, and the only place that holds the rows
        object.__setattr__(mark, "args", (mark.args[0], values))
        object.__setattr__(mark, "kwargs", {})


def _tables_of_models(module: ModuleType) -> list[str]:
    lists = {
        # by identity, since one list may have two names
        id(value): name
        for name, value in vars(module).items()
        if name.endswith("_MODELS_TO_TEST") and all(isinstance(model, str) for model in value)
    }
    return list(lists.values())


def _parameters(item: pytest.Item) -> list[Any]:
    callspec = getattr(item, "callspec", None)
    return list(callspec.params.values()) if callspec else []
