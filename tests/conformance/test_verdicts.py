"""The sorting of results and the list of known tests; none of PEFT's tests are run."""

import json
import re
from pathlib import Path

import pytest
from verdicts import Entry, judge, read_known

HERE = Path(__file__).parent
KNOWN = (
    Entry("refused", r"merge\[serial", "cannot be merged", "not linear"),
    Entry("failing", r"test_x\[", "^TypeError", "no such argument"),
)


def result(test: str, outcome: str, cause: str = "") -> dict[str, str]:
    return {"test": test, "outcome": outcome, "cause": cause}


def test_each_outcome_is_counted_once():
    verdict = judge(
        [
            result("a", "passed"),
            result("b", "skipped", "no GPU"),
            result("test_merge[serial-MLP]", "failed", "ConfigError: cannot be merged"),
            result("test_x[1]", "failed", "TypeError: y"),
            result("test_z", "failed", "ValueError:\n  z"),
        ],
        KNOWN,
    )
    summary = verdict.summary()
    counts = [summary[name] for name in ("passed", "skipped", "refused", "failed")]
    assert counts == [1, 1, 1, 2]
    assert summary["failures"] == [
        {"test": "test_x[1]", "cause": "no such argument"},
        {"test": "test_z", "cause": "ValueError: z"},
    ]
    assert [failure["test"] for failure in verdict.unexpected] == ["test_z"]
    assert not verdict.surprises


def test_a_known_test_with_another_error_is_unexpected():
    verdict = judge([result("test_merge[serial]", "failed", "KeyError: 'x'")], KNOWN)
    assert len(verdict.unexpected) == 1
    assert verdict.summary()["refused"] == 0


def test_passing_against_expectation_and_unused_entries_are_reported():
    verdict = judge([result("test_merge[serial]", "passed")], KNOWN)
    assert verdict.surprises == ["test_merge[serial]"]
    assert verdict.unused == list(KNOWN)


def test_the_file_of_known_tests_can_be_read():
    for entry in read_known(HERE / "known.toml"):
        assert re.compile(entry.tests)
        assert re.compile(entry.error)
        assert entry.reason.strip()


def test_the_stored_summary_has_no_failure_without_a_reason():
    file = HERE / "summary.json"
    if not file.is_file():
        pytest.skip("tests/conformance/run.py was not run yet")
    summary = json.loads(file.read_text(encoding="utf-8"))
    assert summary["failed_unexpectedly"] == 0
    reasons = {entry.reason for entry in read_known(HERE / "known.toml")}
    assert {failure["cause"] for failure in summary["failures"]} <= reasons
    assert set(summary["refusals"]) <= reasons
