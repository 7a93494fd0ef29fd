"""A store that is out of reach is waited for, and what is said of it tells what to do."""

import logging

import pytest
from sqlalchemy.exc import OperationalError

from peft_autoconfig.errors import SearchError
from peft_autoconfig.search.database import DatabasePlace
from peft_autoconfig.search.patience import FIRST_PAUSE_SECONDS, patiently

CROWDED = "FATAL:  sorry, too many clients already"


@pytest.fixture
def place():
    """A place that is never asked."""
    return DatabasePlace("postgresql+psycopg2://user@nowhere/searches", "search")


class Failing:
    """Work that fails some times, as with a server that says why."""

    def __init__(self, text, times):
        self.error, self.left = OperationalError("SELECT 1", {}, Exception(text)), times
        self.missed = 0

    def __call__(self):
        if self.left:
            self.left -= 1
            raise self.error
        return "done"

    def miss(self):
        self.missed += 1


def wait(work, place, patience):
    return patiently(work, place, place.passes, patience=patience, missed=work.miss)


def test_what_passes_is_waited_for(place, caplog):
    caplog.set_level(logging.WARNING)
    work = Failing("connection refused", 2)
    assert wait(work, place, 60.0) == "done"
    assert work.missed == 2
    assert "connection refused" in caplog.text
    assert "max_connections" not in caplog.text


@pytest.mark.parametrize(
    "text", [CROWDED, "FATAL: remaining connection slots are reserved for roles with SUPERUSER"]
)
def test_a_server_without_a_free_connection_is_told_apart(place, caplog, text):
    caplog.set_level(logging.WARNING)
    assert wait(Failing(text, 1), place, 60.0) == "done"
    assert "Raise max_connections of the data base above the number of workers" in caplog.text
    with pytest.raises(SearchError, match=r"max_connections.*or put a pooler.*run the same"):
        wait(Failing(text, 9), place, FIRST_PAUSE_SECONDS / 2)


def test_other_failures_ask_for_the_server_the_network_and_the_disk(place):
    with pytest.raises(SearchError, match=r"for 0 s: no route\. See that .* disk has room; then"):
        wait(Failing("no route", 9), place, FIRST_PAUSE_SECONDS / 2)
