"""Real processes, really killed: every result is kept once, nothing is trained twice."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peft_autoconfig.errors import SearchError
from peft_autoconfig.outcome import Outcome
from peft_autoconfig.run.folder import read_front
from peft_autoconfig.search.store import MAX_ATTEMPTS

from .search_cases import (
    SPACE,
    complete,
    open_search,
    points,
    run_path,  # noqa: F401 (the fixture `folder`)
    scored,
    states,
)

# A server that has imported everything once and forks from there: fresh processes at no cost.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["tests.search.test_store"])


class Recorded:
    """An objective that keeps a diary of what is trained, across processes."""

    def __init__(self, diary: Path, seconds: float) -> None:
        self.diary = diary
        self.seconds = seconds

    def __call__(self, config, learning_rate):
        self._write("begin", config, learning_rate)
        time.sleep(self.seconds)
        self._write("end", config, learning_rate)
        return scored(config, learning_rate)

    def _write(self, what, config, learning_rate):
        line = f"{what} {SPACE.params(config, learning_rate)}\n".encode()
        file = os.open(self.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line)
        os.close(file)


def work(folder, n_trials, seconds=0.05, together=None):
    """What one worker process does; ``together`` is a barrier to pass before it begins."""
    search = open_search(folder, seed=None)
    if together is not None:
        together.wait()
    search.run(Recorded(folder.with_name("diary"), seconds), n_trials)


def start(*arguments):
    process = fresh.Process(target=work, args=arguments)
    process.start()
    return process


def finish(processes):
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def check_whole(search, n_trials):
    """Asserts what must hold of every run that came to its end."""
    done = complete(search)
    assert len(done) == n_trials
    assert len(set(points(done))) == n_trials
    assert not {"RUNNING", "WAITING"} & set(states(search))
    for record in done:
        assert record.score == scored(record.config, record.learning_rate)
    assert [m["trial"] for m in read_front(search.folder.path)] == [
        record.number for record in search.front()
    ]


def test_killed_again_and_again(folder):
    n_trials, kills = 60, 6
    search = open_search(folder)
    generator = random.Random(0)
    for _ in range(kills):
        before = len(search.trials)
        worker = start(folder, n_trials)
        while len(search.trials) == before:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.4))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert len(complete(search)) < n_trials, "killed too late to tell anything"
    n_trials = len(complete(search)) + 6
    finish([start(folder, n_trials)])
    check_whole(search, n_trials)
    assert any("died" in (record.reason or "") for record in search.trials)


def test_a_dead_workers_trial_comes_again_once_and_first(folder):
    worker = start(folder, 3, 60.0)
    search = open_search(folder)
    while "RUNNING" not in states(search) or search.trials[-1].config is None:
        time.sleep(0.05)
    [taken] = [record for record in search.trials if record.state == "RUNNING"]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    again, other = search.ask(), search.ask()
    assert points([again]) == points([taken]) != points([other])
    assert search.trials[taken.number].state == "FAIL"
    assert search.trials[taken.number].reason == f"its worker, process {worker.pid}, died"


def test_two_workers_share_a_run(folder):
    n_trials = 8
    together = fresh.Barrier(2)
    # Far longer than the steps in the store, which are taken one at a time.
    finish([start(folder, n_trials, 0.7, together) for _ in range(2)])
    check_whole(open_search(folder), n_trials)
    diary = folder.with_name("diary").read_text().splitlines()
    training, most = set(), 0
    for line in diary:
        what, point = line.split(" ", 1)
        assert (point in training) == (what == "end"), "trained by two at once"
        training ^= {point}
        most = max(most, len(training))
    assert most == 2, "they did not work side by side"


def test_the_budget_holds_when_workers_outnumber_it(folder):
    finish([start(folder, 2, 0.3) for _ in range(4)])
    check_whole(open_search(folder), 2)


def test_one_worker_dies_and_the_other_finishes_its_trial(folder):
    worker = start(folder, 4, 60.0)
    search = open_search(folder)
    while "RUNNING" not in states(search):
        time.sleep(0.05)
    other = start(folder, 4)
    time.sleep(1.0)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    finish([other])
    check_whole(search, 4)


def test_ctrl_c_keeps_everything(folder):
    script = (
        "import signal, sys, time, pathlib\n"
        "from tests.search.test_store import open_search\n"
        # a shell that starts tests in the background has them ignore it
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def objective(config, learning_rate):\n"
        "    print('training', flush=True)\n"
        "    time.sleep(60)\n"
        "try:\n"
        "    open_search(pathlib.Path(sys.argv[1])).run(objective, 4)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "interrupted\n")
    search = open_search(folder)
    [taken] = [record for record in search.trials if record.reason == "interrupted"]
    assert points([search.ask()]) == points([taken])


# --- workers that were only slow ------------------------------------------------------------------


@pytest.fixture
def slow(folder):
    """A worker with a trial in its hands that another worker takes for lost."""
    worker, other = open_search(folder), open_search(folder, seed=2)
    trial = worker.ask()
    other.hand_back(trial.number, "thought lost")
    return worker, other, trial


def test_a_late_report_is_kept_and_spares_the_retry(slow):
    worker, other, trial = slow
    record = worker.tell(trial.number, Outcome(0.9, loss=0.3))
    assert (record.state, record.score, record.loss) == ("COMPLETE", 0.9, 0.3)
    assert points([record]) == points([trial])
    assert points([other.ask()]) != points([trial])
    assert len(complete(worker)) == 1
    assert len(worker.front()) == 1


def test_a_late_report_after_its_retry_does_not_count_twice(slow):
    worker, other, trial = slow
    retry = other.ask()
    assert points([retry]) == points([trial])
    other.tell(retry.number, 0.8)
    late = worker.tell(trial.number, 0.9)
    assert (late.state, late.reason) == ("FAIL", f"repeats trial {retry.number}")
    assert [record.score for record in complete(worker)] == [0.8]


def test_a_retry_after_a_late_report_does_not_count_twice(slow):
    worker, other, trial = slow
    retry = other.ask()
    late = worker.tell(trial.number, 0.9)
    assert late.state == "COMPLETE"
    assert other.tell(retry.number, 0.8).reason == f"repeats trial {late.number}"
    assert [record.score for record in complete(worker)] == [0.9]


def test_a_late_failure_changes_nothing(slow):
    worker, other, trial = slow
    record = worker.fail(trial.number, "late")
    assert (record.state, record.reason) == ("FAIL", "thought lost")
    other.hand_back(trial.number)
    assert states(worker) == ["FAIL", "WAITING"]


# --- steps that were cut short --------------------------------------------------------------------


def test_a_trial_without_an_owner_is_taken_back(folder):
    search = open_search(folder)
    search._store._study.ask()  # killed right after
    search.ask()
    assert states(search)[0] == "FAIL"
    assert search.trials[0].config is None
    assert "WAITING" not in states(search)


def test_a_queued_trial_taken_up_by_the_dead_is_queued_again(folder):
    search = open_search(folder)
    taken = search.ask()
    search.hand_back(taken.number)
    search._store._study.ask()  # pops the queued one, killed right after
    assert points([search.ask()]) == points([taken])


def test_a_crash_between_requeue_and_end_makes_one_retry(folder, monkeypatch):
    search = open_search(folder)
    taken = search.ask()
    with monkeypatch.context() as patch:
        patch.setattr(search._store, "end", lambda *_: None)
        search.hand_back(taken.number)
    assert states(search) == ["RUNNING", "WAITING"]
    search._store._pulse.release(taken.number)
    assert points([search.ask()]) == points([taken])
    assert states(search) == ["FAIL", "RUNNING"]


def test_a_configuration_that_kills_its_worker_is_given_up(folder):
    search = open_search(folder)
    first = search.ask()
    for _ in range(MAX_ATTEMPTS):
        last = search.trials[-1]
        assert points([last]) == points([first])
        search._store._pulse.release(last.number)  # as if its worker had died
        search.ask()
    assert points(search.trials[-1:]) != points([first])
    assert f"given up after {MAX_ATTEMPTS} attempts" in last_failure(search)


def last_failure(search):
    return [record.reason for record in search.trials if record.state == "FAIL"][-1]


def test_a_trial_gives_signs_of_life(folder, monkeypatch):
    monkeypatch.setattr("peft_autoconfig.search.worker.BEAT_SECONDS", 0.05)
    search = open_search(folder)
    trial = search.ask()
    beat = None
    for _ in range(100):
        beat = search._store.trial(trial.number).user_attrs.get("beat")
        if beat and beat >= 2:
            break
        time.sleep(0.05)
    assert beat >= 2
    search.tell(trial.number, 0.5)


def test_no_such_trial(folder):
    with pytest.raises(SearchError, match="no trial 3"):
        open_search(folder).hand_back(3)


def test_a_trial_that_was_given_up_comes_again_in_the_same_process(folder):
    """As in a notebook, where the next search is another object and the process lives on."""
    first, second = open_search(folder), open_search(folder)
    taken, kept = first.ask(), first.ask()
    first._store._pulse.release(taken.number)  # as where the store fails while it is handed back
    assert points([second.ask()]) == points([taken])
    assert second.trials[taken.number].reason == "interrupted"
    assert second.trials[kept.number].state == "RUNNING"
