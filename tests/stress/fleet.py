"""Worker processes that are killed, stopped, terminated, and what became of their trials.

The workers write a diary beside the store: what they begin, and what the store has accepted. It is
compared with the store afterwards, so that the store is not its own witness.
"""

import math
import multiprocessing
import os
import random
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna

from peft_autoconfig.run.folder import read_front
from peft_autoconfig.search import Search
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.space import SearchSpace

# Far more points than trials, and few parameters, each of which is a statement.
SPACE = SearchSpace(
    num_layers=2,
    hidden_size=64,
    serial_bottleneck_sizes=tuple(range(32)),
    parallel_bottleneck_sizes=tuple(range(32)),
    prefix_lengths=tuple(range(32)),
)

# A server that has imported everything once and forks from there: fresh processes at no cost.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["tests.stress.fleet"])


def scored(config) -> float:
    """More parameters help, as in `tests.search`."""
    return 1 - math.exp(-SPACE.num_params(config) / 10_000)


def open_search(folder: Path, storage: str | None) -> Search:
    sampler = optuna.samplers.RandomSampler()
    return Search(SPACE, folder, sampler=sampler, storage=storage)


class Diary:
    """A file to which many processes add lines, each whole."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, *words: object) -> None:
        line = " ".join(map(str, (f"{time.time():.4f}", *words)))
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    def size(self) -> int:
        return self._file.stat().st_size

    def lines(self, offset: int = 0) -> list[list[str]]:
        """Returns the words of each line from an offset on that `size` gave."""
        with self._file.open("rb") as file:
            file.seek(offset)
            return [line.split() for line in file.read().decode().splitlines()]


def key_of(record_or_config, config=None) -> str:
    config = getattr(record_or_config, "config", record_or_config)
    return "-".join(map(str, SPACE.params(config).values()))


def work(folder: Path, storage: str | None, n_trials: int, seconds: float) -> None:
    """What one worker process does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    diary = Diary(folder.with_name("diary"))

    def objective(config):
        diary.add("begin", os.getpid(), key_of(config))
        time.sleep(random.uniform(0, 2 * seconds))
        diary.add("end", os.getpid(), key_of(config))
        return scored(config)

    def told(search: Search, record: TrialRecord) -> None:
        if record.state == "COMPLETE":
            diary.add("told", os.getpid(), key_of(record), record.number)

    try:
        open_search(folder, storage).run(objective, n_trials, callbacks=[told])
    except KeyboardInterrupt:
        diary.add("interrupted", os.getpid())


@dataclass
class Tally:
    """What became of the trials.

    Attributes:
        kills: Workers that were ended by SIGKILL.
        terminated: Workers that were ended by SIGTERM.
        stopped: Workers that stood still for a while (SIGSTOP).
        restarts: Restarts of the data base, each as after a crash of it.
        finished: Complete trials.
        lost: Results that the store had accepted, or was to have, and that are not in it.
        duplicated: Configurations that are complete twice.
        at_once: Configurations that two living workers trained at the same time.
        left_running: Trials that are still under way though nobody works.
        over_budget: Complete trials beyond the budget.
        front_is_recomputed: Whether the front on disk is that of all complete trials.
    """

    kills: int = 0
    terminated: int = 0
    stopped: int = 0
    restarts: int = 0
    finished: int = 0
    lost: int = 0
    duplicated: int = 0
    at_once: int = 0
    left_running: int = 0
    over_budget: int = 0
    front_is_recomputed: bool = True

    def values(self) -> dict[str, int | bool]:
        return asdict(self)


class Fleet:
    """Some workers on one search, and somebody who does them harm.

    Args:
        folder: Run folder; a diary lies beside it.
        storage: Address of the data base; None for the folder's own file.
        workers: How many at a time.
        seconds: Mean length of a trial.
        seed: Of the harm.
    """

    def __init__(
        self, folder: Path, storage: str | None, *, workers: int, seconds: float, seed: int = 0
    ) -> None:
        self._folder, self._storage = folder, storage
        self._workers, self._seconds = workers, seconds
        self._random = random.Random(seed)
        self._killed: dict[int, float] = {}
        self.tally = Tally()
        self.search = open_search(folder, storage)
        self._diary = Diary(folder.with_name("diary"))
        folder.with_name("diary").touch()

    def run(self, budget: int, *, harm=None, until=lambda: False) -> None:
        """Lets the workers search until the run holds ``budget`` trials, with harm in between.

        Args:
            budget: Complete trials of the run.
            harm: Called with a living process every now and then; None for none.
            until: Whether there was harm enough.
        """
        crew = [self._start(budget) for _ in range(self._workers)]
        while harm is not None and not until() and any(p.is_alive() for p in crew):
            victim = self._victim(crew)
            if victim is not None:
                harm(victim)
            crew = [p if p.is_alive() or p.exitcode == 0 else self._start(budget) for p in crew]
        # those that were hit last have left something behind
        crew.append(self._start(budget))
        for process in crew:
            process.join()
        assert crew[-1].exitcode == 0
        self._check(budget)

    def _victim(self, crew):
        """Returns a living process: one that has just begun a trial, now and then any."""
        if self._random.random() < 0.1:
            time.sleep(self._random.uniform(0, 0.5))
            living = [process for process in crew if process.is_alive()]
            return self._random.choice(living) if living else None
        before = self._diary.size()
        while any(process.is_alive() for process in crew):
            begun = [int(pid) for _, what, pid, *_ in self._diary.lines(before) if what == "begin"]
            found = [process for process in crew if process.pid in begun]
            if found:
                # into its training, its report or its next question
                time.sleep(self._random.uniform(0, 3 * self._seconds))
                return found[0] if found[0].is_alive() else None
            time.sleep(0.02)
        return None

    def kill(self, process) -> None:
        self._killed.setdefault(process.pid, time.time())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.tally.kills += process.exitcode == -signal.SIGKILL

    def terminate(self, process) -> None:
        self._killed.setdefault(process.pid, time.time())
        for _ in range(self._random.choice([1, 1, 3])):  # a storm, now and then
            try:
                os.kill(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                break
            time.sleep(0.01)
        process.join()
        self.tally.terminated += 1

    def stop(self, process) -> None:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(self._random.uniform(0, 1.0))
        os.kill(process.pid, signal.SIGCONT)
        self.tally.stopped += 1

    def _start(self, budget: int):
        arguments = (self._folder, self._storage, budget, self._seconds)
        process = fresh.Process(target=work, args=arguments)
        process.start()
        return process

    def _check(self, budget: int) -> None:
        """Brings the tally up to date."""
        tally, trials = self.tally, self.search.trials
        complete = [record for record in trials if record.state == "COMPLETE"]
        keys = [key_of(record) for record in complete]
        lines = self._diary.lines()
        tally.finished = len(complete)
        tally.lost = len({line[3] for line in lines if line[1] == "told"} - set(keys))
        tally.duplicated = len(keys) - len(set(keys))
        tally.at_once = self._trained_at_once(lines)
        tally.left_running = sum(record.state == "RUNNING" for record in trials)
        tally.over_budget += len(complete) - budget
        stored = [member["trial"] for member in read_front(self._folder)]
        best = sorted(complete, key=lambda r: (r.num_params, -r.score, r.number))
        front, top = [], -math.inf
        for record in best:
            if record.score > top:
                front.append(record.number)
                top = record.score
        tally.front_is_recomputed &= stored == front
        assert all(record.score == scored(record.config) for record in complete)

    def _trained_at_once(self, lines: list[list[str]]) -> int:
        under_way: dict[str, int] = {}
        count = 0
        for when, what, pid, *rest in lines:
            if what == "begin":
                other = under_way.get(rest[0])
                if other is not None and self._killed.get(other, math.inf) > float(when):
                    count += 1
                under_way[rest[0]] = int(pid)
            elif what == "end" and under_way.get(rest[0]) == int(pid):
                del under_way[rest[0]]
        return count
