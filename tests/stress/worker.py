"""A worker process that tells a diary what it does, so that the store is not its own witness."""

import hashlib
import math
import os
import random
import signal
import time
from pathlib import Path

import optuna

from peft_autoconfig.search import Search
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.space import SearchSpace
from peft_autoconfig_cli.interruption import heed_interruptions

from . import adapters

# Far more points than trials, and few parameters, each of which is a statement.
SPACE = SearchSpace(
    num_layers=adapters.SIZES["num_hidden_layers"],
    hidden_size=adapters.SIZES["hidden_size"],
    serial_bottleneck_sizes=tuple(range(32)),
    parallel_bottleneck_sizes=tuple(range(32)),
    prefix_lengths=tuple(range(32)),
)


def scored(config) -> float:
    """More parameters help, as in `tests.search`."""
    return 1 - math.exp(-SPACE.num_params(config) / 10_000)


def open_search(folder: Path, storage: str | None) -> Search:
    sampler = optuna.samplers.RandomSampler()
    return Search(SPACE, folder, sampler=sampler, storage=storage)


def key_of(config) -> str:
    """Returns a word that tells a configuration from all others."""
    return "-".join(map(str, SPACE.params(config).values()))


def adapter_of(folder: Path, config) -> tuple[Path, float]:
    """Returns where the adapter of a configuration belongs, and what its weights are."""
    key = key_of(config)
    level = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) / 2**16
    return folder.with_name("adapters") / key, level


class Diary:
    """A file to which many processes add lines, each whole."""

    def __init__(self, folder: Path) -> None:
        self._file = folder.with_name("diary")
        self._file.touch()

    def add(self, *words: object) -> None:
        line = " ".join(map(str, (f"{time.time():.4f}", os.getpid(), *words)))
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    def lines(self) -> list[tuple[float, int, list[str]]]:
        """Returns of each line its time, process and words."""
        entries = [line.split() for line in self._file.read_text().splitlines()]
        return [(float(when), int(pid), words) for when, pid, *words in entries]


class Gate:
    """Holds the last trials of a budget until there was harm enough.

    Args:
        folder: Run folder.
        most: Trials that may end before; fewer than the budget by as many as there are workers,
            each of which may be at the gate when one more is let through.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._file, self._most = folder.with_name("open"), most

    def open(self) -> None:
        self._file.touch()

    def holds(self, diary: Diary) -> bool:
        """Returns whether so many trials have ended that the next ones must wait."""
        if self._file.exists():
            return False
        return sum(words[0] == "end" for *_, words in diary.lines()) >= self._most

    def wait(self, diary: Diary) -> None:
        while self.holds(diary):
            time.sleep(0.02)


def work(folder: Path, storage: str | None, n_trials: int, seconds: float, gate: Gate) -> None:
    """What one worker process does; SIGTERM ends it as a process that cleans up is ended."""
    heed_interruptions()
    diary = Diary(folder)

    def objective(config):
        diary.add("begin", key_of(config))
        time.sleep(random.uniform(0, 2 * seconds))
        adapters.save(config, *adapter_of(folder, config))
        gate.wait(diary)
        diary.add("end", key_of(config))
        return scored(config)

    def told(search: Search, record: TrialRecord) -> None:
        if record.state == "COMPLETE":
            diary.add("told", key_of(record.config))

    try:
        search = open_search(folder, storage)
        diary.add("open")
        search.run(objective, n_trials, callbacks=[told])
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
