"""Sorts the results of PEFT's tests: passed, skipped, refused by design, failed.

`known.toml` names the tests that are expected not to pass. An entry must name the error too, so
that a test which fails for another reason is seen:

    [[refused]]  we refuse, with an error that says why; the refusal is what the test verified
    [[failing]]  a fault of ours or a demand that we cannot meet
"""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from re import search
from typing import Any

__all__ = ["Entry", "Verdict", "judge", "read_known"]


@dataclass(frozen=True)
class Entry:
    """One entry of `known.toml`.

    Args:
        kind: "refused" or "failing".
        tests: Regular expression, found in ``file.py::Class::test[parameters]``.
        error: Regular expression, found in the error of each of these tests.
        reason: Why it is so.
    """

    kind: str
    tests: str
    error: str
    reason: str

    def names(self, test: str) -> bool:
        """Tells whether this entry is about the test."""
        return bool(search(self.tests, test))

    def explains(self, test: str, cause: str) -> bool:
        """Tells whether the test is named and failed in this way."""
        return self.names(test) and bool(search(self.error, cause))


@dataclass
class Verdict:
    """The results of one run, sorted.

    Args:
        passed: Number of tests that passed.
        skips: Cause of a skip in PEFT's tests -> number of tests.
        refusals: Reason -> number of tests.
        failures: Name of the test, its error and, if it is known, the reason.
        surprises: Tests that passed though an entry names them.
        unused: Entries that no test needed.
    """

    passed: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    unused: list[Entry] = field(default_factory=list)

    @property
    def unexpected(self) -> list[dict[str, str]]:
        """The failures that no entry explains."""
        return [failure for failure in self.failures if "reason" not in failure]

    def summary(self) -> dict[str, Any]:
        """Returns what `summary.json` holds."""
        return {
            "passed": self.passed,
            "skipped": sum(self.skips.values()),
            "refused": sum(self.refusals.values()),
            "failed": len(self.failures),
            "failed_unexpectedly": len(self.unexpected),
            "failures": [
                {"test": one["test"], "cause": one.get("reason") or one["error"]}
                for one in self.failures
            ],
            "refusals": dict(self.refusals.most_common()),
            "skips": dict(self.skips.most_common()),
        }


def read_known(file: Path) -> list[Entry]:
    """Returns the entries of a file like `known.toml`, in its order."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return [Entry(kind, **row) for kind in ("refused", "failing") for row in tables.get(kind, [])]


def judge(results: Sequence[dict[str, str]], known: Sequence[Entry]) -> Verdict:
    """Returns the results sorted; the first entry that explains a failure counts."""
    verdict = Verdict(unused=list(known))
    for result in results:
        test, cause = result["test"], result["cause"]
        if result["outcome"] == "passed":
            verdict.passed += 1
            if any(entry.names(test) for entry in known):
                verdict.surprises.append(test)
        elif result["outcome"] == "skipped":
            verdict.skips[cause] += 1
        else:
            _sort_failure(verdict, test, cause, known)
    return verdict


def _sort_failure(verdict: Verdict, test: str, cause: str, known: Sequence[Entry]) -> None:
    entry = next((entry for entry in known if entry.explains(test, cause)), None)
    if entry in verdict.unused:
        verdict.unused.remove(entry)
    if entry and entry.kind == "refused":
        verdict.refusals[entry.reason] += 1
        return
    failure = {"test": test, "error": " ".join(cause.split())[:300]}
    verdict.failures.append(failure | ({"reason": entry.reason} if entry else {}))
