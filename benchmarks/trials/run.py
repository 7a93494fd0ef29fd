"""What does a trial cost in our worker, and what with `transformers.Trainer`?

    python benchmarks/trials/run.py --data-dir DATA [--task trec] [--steps 64] [--rounds 4]
    python benchmarks/trials/run.py --summarise

In a round every mode trains the same configuration, in an order drawn for the round, while the
others wait. Each mode has a process of its own that lives on, so that the imports count for nobody;
the first trial of ours loads the model and tokenises. CPU seconds of the process are kept, which on
a shared machine are disturbed least. `results/trials.jsonl` has a line for each trial, written as
it is done; a run that was cut off goes on.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FILE = RESULTS / "trials.jsonl"
MODES = ("ours", "trainer_padded", "trainer_dynamic", "trainer_search")
NUM_TRIALS = 4
MARK = "<!-- table, written by run.py -->"


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def start(stack: ExitStack, mode: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """Returns the process of a mode, which ends with the stack."""
    command = [sys.executable, str(HERE / "worker.py"), mode, arguments.task]
    process = subprocess.Popen(
        [*command, str(arguments.steps), arguments.data_dir or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if arguments.verbose else subprocess.DEVNULL,
        text=True,
        env={
            # twice as fast as float32 on a processor that has it; in every mode
            "ACCELERATE_MIXED_PRECISION": "bf16",
            **os.environ,
            "OMP_NUM_THREADS": str(arguments.threads),
        },
    )
    stack.callback(process.wait)
    assert process.stdin is not None
    stack.callback(process.stdin.close)
    return process


def ask(process: subprocess.Popen[str], **order: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a worker ended with status {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def measure(arguments: argparse.Namespace) -> None:
    done = sum(
        r["task"] == arguments.task and r["steps"] == arguments.steps and r["mode"] == "ours"
        for r in read()
    )
    with ExitStack() as stack:
        processes = {mode: start(stack, mode, arguments) for mode in MODES}
        for number in range(done, arguments.rounds):
            order = random.Random(number).sample(MODES, len(MODES))
            trial, seed = number % NUM_TRIALS, number // NUM_TRIALS
            answers = [ask(processes[mode], trial=trial, seed=seed) for mode in order]
            with FILE.open("a") as lines:  # a round as a whole
                lines.writelines(json.dumps(answer) + "\n" for answer in answers)
            print(*(f"{a['mode']} {a['cpu_seconds']} s" for a in answers), flush=True)


def summarise() -> None:
    """Writes `summary.json` and the table of the README."""
    lines = [MARK, ""]
    records = read()
    for task in sorted({record["task"] for record in records}):
        cells = [record for record in records if record["task"] == task]
        lines += [
            f"**{task}**, {cells[0]['steps']} steps of 32, {cells[0]['precision']}, "
            f"{cells[0]['threads']} thread:",
            "",
            "| trial | " + " | ".join(f"{mode}, CPU s (score)" for mode in MODES) + " |",
            "|---|" + "--:|" * len(MODES),
        ]
        rounds: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        for cell in cells:
            rounds.setdefault((cell["trial"], cell["seed"]), {})[cell["mode"]] = cell
        for (trial, _), by_mode in rounds.items():
            told = [f"{by_mode[m]['cpu_seconds']} ({by_mode[m]['score']:.3f})" for m in MODES]
            lines.append(f"| {trial} | " + " | ".join(told) + " |")
        means = {m: mean(r["cpu_seconds"] for r in cells if r["mode"] == m) for m in MODES}
        hourly = [f"{3600 / means[mode]:.0f}" for mode in MODES]
        lines.append("| **trials per core-hour** | " + " | ".join(hourly) + " |")
        lines.append("| **core-seconds per trial / ours** | " + " | ".join(
            f"{means[mode] / means['ours']:.2f}" for mode in MODES) + " |")  # fmt: skip
        lines.append("")
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    readme.write_text(text + "\n".join(lines), encoding="utf-8")
    summary: dict[str, float | None] = {
        "speedup_vs_trainer_padded": _total(records, "trainer_padded"),
        "speedup_vs_trainer_dynamic": _total(records, "trainer_dynamic"),
        "speedup_vs_trainer_search": _total(records, "trainer_search"),
        "gpu_parallel_speedup": _parallel_speedup(),
    }
    replayed = HERE.parent / "fidelity" / "results" / "summary.json"
    share = json.loads(replayed.read_text())["cost_fraction"]
    padded = summary["speedup_vs_trainer_padded"]
    summary["speedup_search_vs_trainer_padded"] = padded and round(padded / share, 2)
    print(summary)
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _total(records: list[dict[str, Any]], mode: str) -> float | None:
    """Returns the geometric mean over tasks of how many times our seconds a mode takes."""
    factor, tasks = 1.0, sorted({record["task"] for record in records})
    for task in tasks:
        by_mode = [
            sum(r["cpu_seconds"] for r in records if r["mode"] == m and r["task"] == task)
            for m in (mode, "ours")
        ]
        factor *= by_mode[0] / by_mode[1]
    return round(factor ** (1 / len(tasks)), 2) if tasks else None


def _parallel_speedup() -> float | None:
    """Returns the most that `parallel.py` saw on a GPU; None where it has not been run on one."""
    file = RESULTS / "parallel-cuda.json"
    if not file.exists():
        return None
    return float(max(row["speedup"] for row in json.loads(file.read_text())["rows"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", default="trec")
    add("--data-dir", help="folder of parquet files; default: the Hub")
    add("--steps", type=int, default=64, help="of 32 examples")
    add("--rounds", type=int, default=NUM_TRIALS, help="trials in each mode")
    add("--threads", type=int, default=1)
    add("--verbose", action="store_true", help="show what the workers say")
    add("--summarise", action="store_true", help="write the table only")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if not arguments.summarise:
        measure(arguments)
    summarise()


if __name__ == "__main__":
    main()
