"""Who is alive: by the operating system on this host, by the beat on others."""

import subprocess
import sys
import time

import psutil
import pytest

from peft_autoconfig.search.worker import GRACE_SECONDS, Observer, Pulse, this_process


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def owner_of(process):
    started = psutil.Process(process.pid).create_time() - psutil.boot_time()
    return this_process() | {"pid": process.pid, "started": started}


def test_a_process_on_this_host_lives_until_it_dies(sleeper):
    observer, owner = Observer(), owner_of(sleeper)
    assert observer.verdict(0, owner, 0) is None
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert "died" in observer.verdict(0, owner, 0)  # dead, though its parent has not looked
    sleeper.wait()
    assert "died" in observer.verdict(0, owner, 0)


def test_a_process_that_lives_on_without_a_sign_of_life_is_lost(sleeper):
    """Its search was given up, as in a notebook that stays open."""
    now = 0.0
    observer, owner = Observer(clock=lambda: now), owner_of(sleeper)
    assert observer.verdict(0, owner, 1) is None
    now += GRACE_SECONDS
    assert "no sign of life" in observer.verdict(0, owner, 1)


def test_inside_of_a_process_it_is_known_who_holds_what():
    pulse = Pulse("mine", lambda trial, beat: None)
    mine, other = (this_process() | {"session": name} for name in ("mine", "other"))
    pulse.hold(3)
    assert Observer().verdict(3, mine, 0) is None
    assert Observer().verdict(4, mine, 0) == Observer().verdict(3, other, 0) == "interrupted"
    pulse.release(3)
    assert Observer().verdict(3, mine, 0) == "interrupted"


def test_another_process_with_the_same_id_is_not_the_owner(sleeper):
    owner = owner_of(sleeper)
    owner["started"] -= 3600
    assert "died" in Observer().verdict(0, owner, 0)


def test_a_trial_that_was_never_handed_out_is_lost():
    assert Observer().verdict(0, None, None)


def test_on_another_host_silence_tells():
    now = 1000.0
    observer = Observer(clock=lambda: now)
    owner = this_process() | {"host": "elsewhere", "place": "elsewhere"}
    assert observer.verdict(0, owner, 1) is None
    now += GRACE_SECONDS - 1
    assert observer.verdict(0, owner, 1) is None
    assert observer.verdict(1, owner, None) is None
    now += 1
    assert "elsewhere gave no sign of life for 300 s" in observer.verdict(0, owner, 1)
    assert observer.verdict(1, owner, None) is None
    assert observer.verdict(0, owner, 2) is None  # a beat after all
    now += 1
    assert observer.verdict(0, owner, 2) is None


def test_another_container_on_this_host_is_not_asked_of_the_operating_system(sleeper):
    owner = owner_of(sleeper)
    owner["place"] = owner["place"].replace("pid:[", "pid:[1")
    sleeper.kill()
    sleeper.wait()
    assert Observer().verdict(0, owner, 0) is None


def test_time_in_which_no_beat_could_be_stored_does_not_count():
    now = 0.0
    observer = Observer(clock=lambda: now)
    owner = this_process() | {"host": "elsewhere", "place": "elsewhere"}
    assert observer.verdict(0, owner, 1) is None
    now += 2 * GRACE_SECONDS
    observer.forget()
    assert observer.verdict(0, owner, 1) is None
    now += GRACE_SECONDS
    assert "no sign of life" in observer.verdict(0, owner, 1)


def test_a_pulse_beats_for_what_is_held(monkeypatch):
    monkeypatch.setattr("peft_autoconfig.search.worker.BEAT_SECONDS", 0.01)
    beats, missed = [], []

    def beat(trial, count):
        beats.append((trial, count))
        if len(beats) == 1:
            raise OSError("the store is out of reach")

    pulse = Pulse("mine", beat, lambda: missed.append(len(beats)))
    pulse.hold(3)
    while len(beats) < 3:
        time.sleep(0.01)
    assert beats[:3] == [(3, 1), (3, 2), (3, 3)]
    assert missed == [1]
    assert 3 in pulse
    thread = pulse._thread
    pulse.release(3)
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert 3 not in pulse
    pulse._thread = thread  # as a fork leaves it
    pulse.hold(4)  # and it can begin anew
    while beats[-1][0] != 4:
        time.sleep(0.01)
    pulse.release(4)
