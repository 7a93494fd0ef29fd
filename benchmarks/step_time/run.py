"""Measures training steps of our methods and of their peers, one step at a time in turn.

    python benchmarks/step_time/run.py            all: results/*.json and the tables of README.md
    python benchmarks/step_time/run.py --quick    a few rounds of one cell, in a temporary folder

The peer `adapters` wants another transformers, so it lives in an environment of its own, made on
the first run (`--environment`). A cell is one model size with one sequence length. In a round every
mode does one step, in an order drawn for that round; one process computes at any moment. Results
are saved after each round, cell by cell, so a run that is cut off keeps what it has.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import report
from modes import MAIN, MODES, OTHER, SIZES

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
ADAPTERS = ["adapters==1.3.0", "transformers~=4.57.6"]
# of size and sequence length: fewer where a round takes longer
ROUNDS = {("minilm", 64): 12, ("minilm", 128): 6, ("base", 64): 5, ("base", 128): 3}
BATCH = 32


class Process:
    """A worker in one of the environments."""

    def __init__(self, python: str, threads: int) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits, "PYTHONWARNINGS": "ignore"},
        )

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Returns the answer to one order, an "error" among it where a library raised one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the worker ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def make_environment(folder: Path) -> str:
    """Makes the environment of `adapters` unless it is there; returns its Python."""
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        print(f"making the environment of {ADAPTERS[0]} in {folder}", flush=True)
        torch = f"torch=={version('torch').split('+')[0]}"
        install = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([*install, torch], check=True)
        subprocess.run([*install, torch, *ADAPTERS], check=True)
        done.touch()
    return str(python)


class Cell:
    """One model size with one sequence length, measured mode by mode."""

    def __init__(self, args: argparse.Namespace, pythons: dict[str, str], where: tuple[str, int]):
        self.args, self.pythons = args, pythons
        self.size, self.sequence = where
        self.rounds = args.rounds or ROUNDS.get(where, 3)
        self.modes: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Any] = {"date": str(date.today()), **machine()}
        self.facts |= {"threads": args.threads, "batch": BATCH, "commit": commit()}

    def as_json(self) -> dict[str, Any]:
        return {"facts": self.facts, "modes": self.modes}

    def time(self, save: Any) -> None:
        """Times `rounds` steps of every mode after one (two if compiled) that do not count."""
        with self._start(MAIN) as main, self._start(OTHER) as other:
            processes = {MAIN: main, OTHER: other}
            for name, process in processes.items():
                answer = process.ask("open", **self._settings())
                if "error" in answer:
                    raise SystemExit(f"The worker in the {name} environment: {answer['error']}.")
                self.facts[f"{name} environment"] = answer
            keys = list(self._load_all(processes))
            rng = random.Random(0)
            warmups = 2 if self.args.compile else 1
            for count in range(-warmups, self.rounds):
                rng.shuffle(keys)
                for key in list(keys):
                    answer = processes[MODES[key].environment].ask("step", mode=key)
                    if "error" in answer:
                        self.modes[key] = answer
                        keys.remove(key)
                    elif count >= 0:
                        for clock in ("wall", "cpu"):
                            self.modes[key].setdefault(clock, []).append(answer[clock])
                save()
                self._say(f"round {count + 1} of {self.rounds}")

    def weigh(self, save: Any) -> None:
        """Measures memory, each mode in a fresh process."""
        for key in self._chosen():
            if "error" in self.modes[key]:
                continue
            with self._start(MODES[key].environment) as process:
                process.ask("open", **self._settings())
                process.ask("load", mode=key)
                self.modes[key] |= process.ask("memory", mode=key)
            save()
        self._say("memory")

    def _start(self, environment: str) -> Process:
        return Process(self.pythons[environment], self.args.threads)

    def _settings(self) -> dict[str, Any]:
        shared = {name: getattr(self.args, name) for name in ("threads", "device", "dtype")}
        shape = {"size": self.size, "batch": BATCH, "sequence": self.sequence}
        return shape | shared | {"compile": self.args.compile}

    def _chosen(self) -> list[str]:
        return [key for key in MODES if any(word in key for word in self.args.only)]

    def _load_all(self, processes: dict[str, Process]) -> Iterable[str]:
        for key in self._chosen():
            self.modes[key] = processes[MODES[key].environment].ask("load", mode=key)
            if "error" in self.modes[key]:
                self._say(f"{key}: {self.modes[key]['error']}")
            else:
                yield key

    def _say(self, what: str) -> None:
        print(f"{self.size}, sequence {self.sequence}: {what}", flush=True)


def machine() -> dict[str, Any]:
    """What it was measured on, in words that say nothing of whose machine it is."""
    names = [platform.processor() or platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")][:1]
    return {"processor": names[0], "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def commit() -> str:
    """Returns the last commit that changed the tuner, "+" for later edits, "?" outside of git."""
    outputs = []
    for command in (["log", "-1", "--format=%h"], ["status", "--porcelain"]):
        whole = ["git", *command, "--", "peft_autoconfig/tuner"]
        done = subprocess.run(whole, cwd=HERE.parent.parent, capture_output=True, text=True)
        outputs.append(done.stdout.strip())
    return (outputs[0] or "?") + ("+" if outputs[1] else "")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds, MiniLM size, sequence 64")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, help="of every cell, instead of 3 to 12 by its cost")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="modes with one of these in the name"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile every model")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-memory", action="store_true", help="time only")
    what.add_argument(
        "--memory-only", action="store_true", help="add memory to the times that are stored"
    )
    where = "folder of results; default: results, or a temporary one with --quick or --only"
    parser.add_argument("--output", type=Path, help=where)
    default = CACHE / "peft-autoconfig" / "step-time-adapters-1.3.0"
    where = "folder of the environment of `adapters`"
    parser.add_argument("--environment", type=Path, default=default, help=where)
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.sequences, args.rounds = ["minilm"], [64], args.rounds or 3
    if args.quick or args.only != [""]:
        # part of the modes or rounds must not take the place of all of them
        args.output = args.output or Path(tempfile.mkdtemp())
    args.output = args.output or HERE / "results"
    args.condition = "_".join([args.device, args.dtype] + ["compiled"] * args.compile)
    args.dtype = {"fp32": "float32", "bf16": "bfloat16"}[args.dtype]
    return args


def main() -> None:
    args = parse()
    pythons = {MAIN: sys.executable, OTHER: make_environment(args.environment)}
    results = report.Results(args.output)
    for size in args.sizes:
        for sequence in args.sequences:
            cell = Cell(args, pythons, (size, sequence))

            def save(cell: Cell = cell) -> None:
                results.put(args.condition, f"{cell.size}/{cell.sequence}", cell.as_json())

            if args.memory_only:
                stored = results.cell(args.condition, f"{size}/{sequence}")
                cell.modes, cell.facts = stored["modes"], stored["facts"]
            else:
                cell.time(save)
            if not args.no_memory:
                cell.weigh(save)
    tables = results.tables()
    if args.output == HERE / "results":
        report.write_readme(HERE / "README.md", tables)
    print(tables)


if __name__ == "__main__":
    main()
