"""The short version of `benchmarks/stress`: workers of one data base, killed at random moments."""

import pytest

from .fleet import Fleet
from .pooler import Pooler, missing_pooler


@pytest.fixture
def fleet(server, tmp_path):
    return Fleet(tmp_path / tmp_path.name, server.url, workers=3, seconds=0.1)


def check(tally, budget):
    assert tally.finished == budget == tally.adapters
    assert (tally.lost, tally.duplicated, tally.at_once) == (0, 0, 0)
    assert (tally.left_running, tally.over_budget, tally.broken_adapters) == (0, 0, 0)
    assert tally.front_is_recomputed


def test_killed_at_random_moments(fleet):
    fleet.run(16, harm=fleet.kill, until=lambda: fleet.tally.kills >= 8)
    assert fleet.tally.kills == 8
    check(fleet.tally, 16)


def test_terminated_in_storms(fleet):
    fleet.run(16, harm=fleet.terminate, until=lambda: fleet.tally.terminated >= 5)
    assert fleet.tally.terminated == 5
    check(fleet.tally, 16)


def test_slow_workers_lose_nothing(fleet):
    fleet.run(12, harm=fleet.stop, until=lambda: fleet.tally.stopped >= 4)
    assert fleet.tally.stopped == 4
    check(fleet.tally, 12)


def test_a_data_base_that_crashes_beneath_them(server, fleet):
    def restart(_):
        server.stop()
        server.start()
        fleet.tally.restarts += 1

    fleet.run(12, harm=restart, until=lambda: fleet.tally.restarts >= 2)
    assert fleet.tally.restarts == 2
    check(fleet.tally, 12)


def test_killed_behind_a_pooler(server, tmp_path):
    if reason := missing_pooler():
        pytest.skip(reason)
    folder = tmp_path / tmp_path.name
    with Pooler(server, connections=4) as pooler:
        fleet = Fleet(folder, pooler.url, workers=6, seconds=0.1)
        fleet.run(12, harm=fleet.kill, until=lambda: fleet.tally.kills >= 4)
        assert fleet.tally.kills == 4
        check(fleet.tally, 12)
        behind = pooler.asked("SHOW SERVERS").splitlines()
    assert 1 <= len(behind) <= 4
