"""Worker processes that are killed, stopped, terminated, and what became of their trials."""

import math
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil

from peft_autoconfig.run.folder import read_front
from peft_autoconfig.sampler import believed_front

from . import adapters
from .worker import SPACE, Diary, Gate, adapter_of, key_of, open_search, scored, work

# A server that has imported everything once and forks from there: fresh processes at no cost.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["tests.stress.warm"])

# What a worker does after each word of its diary.
PHASES = {"open": "asking", "begin": "training", "end": "telling", "told": "asking"}


@dataclass
class Tally:
    """What became of the trials.

    Attributes:
        kills: Workers that were ended by SIGKILL.
        killed_while: What these were doing: "starting", "asking", "training" or "telling".
        terminated: Workers that were ended by SIGTERM.
        stopped: Workers that stood still for a while (SIGSTOP).
        restarts: Restarts of the data base, each as after a crash of it.
        finished: Complete trials.
        lost: Results that the store had accepted, or was to have, and that are not in it.
        duplicated: Configurations that are complete twice.
        at_once: Configurations that two living workers trained at the same time.
        left_running: Trials that are still under way though nobody works.
        over_budget: Complete trials beyond the budget.
        adapters: Adapters that were saved and loaded again, one for each complete trial.
        broken_adapters: Those that are missing, do not load, or with other weights.
        front_is_recomputed: Whether the front on disk is that of all complete trials.
    """

    kills: int = 0
    killed_while: Counter[str] = field(default_factory=Counter)
    terminated: int = 0
    stopped: int = 0
    restarts: int = 0
    finished: int = 0
    lost: int = 0
    duplicated: int = 0
    at_once: int = 0
    left_running: int = 0
    over_budget: int = 0
    adapters: int = 0
    broken_adapters: int = 0
    front_is_recomputed: bool = True

    def values(self) -> dict[str, object]:
        return vars(self) | {"killed_while": dict(self.killed_while)}

    @classmethod
    def of(cls, values: dict[str, object]) -> "Tally":
        """Returns the tally that gave these values, whatever else is among them."""
        known = {name: values[name] for name in vars(cls()) if name in values}
        tally = cls(**known)
        tally.killed_while = Counter(tally.killed_while)
        return tally

    def plus(self, other: "Tally") -> "Tally":
        """Returns the sum with the tally of another search."""
        both = {name: value + getattr(other, name) for name, value in vars(self).items()}
        recomputed = self.front_is_recomputed and other.front_is_recomputed
        return Tally(**both | {"front_is_recomputed": recomputed})


def front_of(complete) -> list[int]:
    """Returns the numbers of the front of complete records, in a study made of these alone."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for record in complete:
        values = [record.score, record.num_params]
        params = SPACE.params(record.config)
        trial = optuna.trial.create_trial(
            params=params, distributions=SPACE.distributions, values=values
        )
        study.add_trial(trial)
    return [complete[member.number].number for member in believed_front(study, SPACE)]


class Fleet:
    """Some workers on one search, and somebody who does them harm.

    Args:
        folder: Run folder; a diary and adapters lie beside it.
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
        self._hit: dict[int, float] = {}
        self.tally = Tally()
        self.search = open_search(folder, storage)
        self._diary = Diary(folder)

    def run(
        self,
        budget: int,
        *,
        harm: Callable[[multiprocessing.Process], None],
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Lets the workers search until the run holds ``budget`` trials, with harm in between.

        Args:
            budget: Complete trials of the run.
            harm: Called with a living process every now and then.
            until: Whether there was harm enough; the last trials do not end before, and then go
                on in peace. None for harm until the budget is spent.
        """
        self._gate = Gate(self._folder, budget - self._workers)
        if until is None:
            self._gate.open()
        crew = [self._start(budget) for _ in range(self._workers)]
        while any(p.is_alive() for p in crew) and not (until is not None and until()):
            victim = self._victim(crew)
            if victim is not None:
                harm(victim)
            crew = [p if p.is_alive() or p.exitcode == 0 else self._start(budget) for p in crew]
        self._gate.open()
        # those that were hit last have left something behind
        crew.append(self._start(budget))
        for process in crew:
            process.join()
        assert crew[-1].exitcode == 0
        self._check(budget)

    def _victim(self, crew):
        """Returns, at a random moment, a process that has begun a trial, now and then any."""
        self._await_progress(crew, self._random.choice([0, 0, 0, 0, 1, 1]))
        time.sleep(self._random.uniform(0, 0.3))
        living = [process for process in crew if process.is_alive()]
        if self._random.random() > 0.1:
            begun = {pid for _, pid, words in self._diary.lines() if words[0] == "begin"}
            living = [process for process in living if process.pid in begun]
        return self._random.choice(living) if living else None

    def _await_progress(self, crew, trials: int) -> None:
        """Waits until so many more are complete, lest only harm be done."""
        wanted = self._told() + trials
        while self._told() < wanted and any(process.is_alive() for process in crew):
            if self._gate.holds(self._diary):
                return
            time.sleep(0.02)

    def _told(self) -> int:
        return sum(words[0] == "told" for *_, words in self._diary.lines())

    def kill(self, process) -> None:
        self._hit.setdefault(process.pid, time.time())
        with suppress(ProcessLookupError):  # it may just have ended by itself
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            words = [words[0] for _, pid, words in self._diary.lines() if pid == process.pid]
            self.tally.kills += 1
            self.tally.killed_while[PHASES[words[-1]] if words else "starting"] += 1

    def terminate(self, process) -> None:
        self._hit.setdefault(process.pid, time.time())
        pause = self._random.choice([0.01, 0.6])  # one request passed on twice, or a second one
        for _ in range(self._random.choice([1, 1, 3])):  # a storm, now and then
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            process.join(pause)
            if not process.is_alive():
                break
        process.join(20)
        while process.is_alive():  # Python drops what is raised while it disposes of an object
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            process.join(20)
        self.tally.terminated += process.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM)

    def stop(self, process) -> None:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0.1, 1.0))
            self.tally.stopped += psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
            os.kill(process.pid, signal.SIGCONT)

    def _start(self, budget: int):
        arguments = (self._folder, self._storage, budget, self._seconds, self._gate)
        process = fresh.Process(target=work, args=arguments, daemon=True)
        process.start()
        return process

    def _check(self, budget: int) -> None:
        """Fills in the tally."""
        tally, trials = self.tally, self.search.trials
        complete = [record for record in trials if record.state == "COMPLETE"]
        keys = [key_of(record.config) for record in complete]
        lines = self._diary.lines()
        tally.finished = len(complete)
        tally.lost = len({words[1] for *_, words in lines if words[0] == "told"} - set(keys))
        tally.duplicated = len(keys) - len(set(keys))
        tally.at_once = self._trained_at_once(lines)
        tally.left_running = sum(record.state == "RUNNING" for record in trials)
        tally.over_budget = len(complete) - budget
        tally.adapters = len(complete)
        tally.broken_adapters = sum(not self._has_adapter(record.config) for record in complete)
        stored = [member["trial"] for member in read_front(self._folder)]
        tally.front_is_recomputed = stored == front_of(complete)
        assert all(record.score == scored(record.config) for record in complete)

    def _has_adapter(self, config) -> bool:
        try:
            return adapters.is_whole(config, *adapter_of(self._folder, config))
        except (OSError, ValueError, RuntimeError):
            return False

    def _trained_at_once(self, lines: list[tuple[float, int, list[str]]]) -> int:
        under_way: dict[str, int] = {}
        count = 0
        for when, pid, (what, *rest) in lines:
            if what == "begin":
                other = under_way.get(rest[0])
                if other is not None and self._hit.get(other, math.inf) > when:
                    count += 1
                under_way[rest[0]] = pid
            elif what == "end" and under_way.get(rest[0]) == pid:
                del under_way[rest[0]]
        return count
