"""Runs PEFT's own tests on our methods and writes `summary.json`; see README.md.

python tests/conformance/run.py            everything, some six minutes of one core
python tests/conformance/run.py --quick    one model of each family
python tests/conformance/run.py -k "training and serial"
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from our_cases import MODULES
from peft_plugin import QUICK, RESULTS
from tiny_models import build_hub
from upstream import PACKAGE, UpstreamError, fetch_tests
from verdicts import Verdict, judge, read_known

HERE = Path(__file__).resolve().parent
NAMES = ("peft", "transformers", "torch")
PYTHONPATH = filter(None, [os.environ.get("PYTHONPATH")])
# pytest's statuses for "all passed" and "some failed"; others mean that it did not get so far
RAN = (0, 1)
# how many tests are named of those that failed in the same way
SHOWN = 12


def main() -> int:
    """Returns 0 if nothing unexpected happened, else 1."""
    arguments = _arguments()
    try:
        folder = fetch_tests(arguments.cache)
    except UpstreamError as error:
        print(error, file=sys.stderr)
        return 1
    models = build_hub(arguments.cache)
    status, results = _run_pytest(folder, models, arguments)
    if status not in RAN or not results:
        print(f"pytest ended with status {status}; no summary was written.", file=sys.stderr)
        return 1
    verdict = judge(results, read_known(HERE / "known.toml"))
    whole = not (arguments.quick or arguments.keyword)
    if whole:
        _write(verdict, HERE / "summary.json")
    _report(verdict, whole)
    return int(bool(verdict.unexpected or verdict.surprises or (whole and verdict.unused)))


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description="Runs PEFT's own tests on our methods.")
    parser.add_argument("--quick", action="store_true", help="only one model of each family")
    parser.add_argument("-k", dest="keyword", default="", help="as pytest's: which tests to run")
    parser.add_argument("--full-traces", action="store_true", help="show where a test failed")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache / "peft-autoconfig-conformance",
        help="where PEFT's tests and the tiny models are kept",
    )
    return parser.parse_args()


def _run_pytest(
    folder: Path, models: Path, arguments: argparse.Namespace
) -> tuple[int, list[dict[str, str]]]:
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary, "results.jsonl")
        results.touch()
        # an empty file of settings, lest pytest finds those of a project around
        settings = Path(temporary, "pytest.ini")
        settings.write_text("[pytest]\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings)]
        command += ["-p", "peft_plugin", "-p", "no:cacheprovider", "--disable-warnings"]
        command += ["--rootdir", str(folder), "-k", arguments.keyword]
        command += ["--tb", "short" if arguments.full_traces else "no", "-rN"]
        command += [str(folder / PACKAGE / f"{module}.py") for module in MODULES]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(HERE), str(folder), *PYTHONPATH)),
            # the models are looked for by relative names before anyone asks the hub
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            RESULTS: str(results),
            QUICK: "1" if arguments.quick else "",
        }
        status = subprocess.run(command, cwd=models, env=environment, check=False).returncode
        lines = results.read_text(encoding="utf-8").splitlines()
    return status, [json.loads(line) for line in lines]


def _write(verdict: Verdict, file: Path) -> None:
    content = {name: version(name) for name in NAMES} | verdict.summary()
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _report(verdict: Verdict, whole: bool) -> None:
    summary = verdict.summary()
    counts = ("passed", "skipped", "refused", "failed", "failed_unexpectedly")
    print(", ".join(f"{name} {summary[name]}" for name in counts))
    for error, tests in _by_error(verdict).items():
        print(f"FAILED   {error}", *tests[:SHOWN], sep="\n         ")
        if len(tests) > SHOWN:
            print(f"         and {len(tests) - SHOWN} more")
    for test in verdict.surprises:
        print(f"PASSED   {test}, which known.toml expects to fail")
    for entry in verdict.unused if whole else []:
        print(f"UNUSED   {entry.kind} {entry.tests} in known.toml explained nothing")


def _by_error(verdict: Verdict) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for failure in verdict.unexpected:
        groups.setdefault(failure["error"], []).append(failure["test"])
    return groups


if __name__ == "__main__":
    sys.exit(main())
