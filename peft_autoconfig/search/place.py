"""Where the study of a run is kept, and the lock under which it changes; here: in its folder.

Imports `run`; imported by `rows`, `store`, `patience`, `database` and `search`.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection
from sqlalchemy.exc import OperationalError

from ..run.folder import RunFolder
from ..run.json_file import refuse_link

__all__ = [
    "SQLITE_TIMEOUT_SECONDS",
    "STUDY_NAME",
    "FolderPlace",
    "LockLost",
    "Place",
    "cause_of",
    "joined",
]

# Each file holds one study, so it needs no name of its own.
STUDY_NAME = "search"
SQLITE_TIMEOUT_SECONDS = 60.0

# What SQLite says of a file that may be usable again in a while.
_PASSING = ("locked", "full", "disk i/o error")


class LockLost(Exception):
    """What held the lock of a place is gone, hence also the lock."""


class Place(Protocol):
    """Where a study is kept."""

    @property
    def study_name(self) -> str:
        """Name of the study there."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""

    def open(self) -> RDBStorage:
        """Returns the storage, with its tables made; to be called inside `first_lock`."""

    def first_lock(self) -> AbstractContextManager[None]:
        """Keeps others from opening while the study is made."""

    def lock(self) -> AbstractContextManager[Connection]:
        """Keeps others from asking and telling; one transaction, which fails once it is lost.

        What Optuna's storage writes meanwhile in this thread is part of the transaction.
        """

    def reading(self) -> AbstractContextManager[Connection]:
        """Lends a connection to read with, also while others hold the lock."""

    def rest(self) -> None:
        """Closes the connections that nobody uses now."""

    def now(self, connection: Connection) -> float:
        """Returns the time in seconds, by the one clock that all workers share."""

    def passes(self, error: Exception) -> bool:
        """Returns whether an error of the storage may be gone in a while."""

    def passes_at_first(self, error: Exception) -> bool:
        """Returns the same of an error at the start, where a wrong address is more likely."""


class FolderPlace:
    """A SQLite file in the run folder, and the folder's lock.

    Args:
        folder: A claimed run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @property
    def study_name(self) -> str:
        return STUDY_NAME

    @property
    def where(self) -> str:
        return str(self._folder.study_file)

    def open(self) -> RDBStorage:
        refuse_link(self._folder.study_file)
        url = URL.create("sqlite", database=self.where).render_as_string()
        # Optuna takes the URL for a template, so braces in a path must be doubled.
        url = url.replace("{", "{{").replace("}", "}}")
        options = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
        self._storage = RDBStorage(url, engine_kwargs=options)
        return self._storage

    def first_lock(self) -> AbstractContextManager[None]:
        return self._folder.lock()

    @contextmanager
    def lock(self) -> Iterator[Connection]:
        with self._folder.lock(), self._storage.engine.begin() as connection:
            with joined(self._storage, connection):
                yield connection

    def reading(self) -> AbstractContextManager[Connection]:
        return self._storage.engine.connect()

    def rest(self) -> None:
        pass  # an open file disturbs nobody

    def now(self, connection: Connection) -> float:
        return time.time()

    def passes(self, error: Exception) -> bool:
        cause = cause_of(error)
        return isinstance(cause, OperationalError) and any(
            sign in str(cause.orig).lower() for sign in _PASSING
        )

    def passes_at_first(self, error: Exception) -> bool:
        return "locked" in str(cause_of(error))


@contextmanager
def joined(storage: RDBStorage, connection: Connection) -> Iterator[None]:
    """Has Optuna's storage use a connection, and its transaction, in this thread."""
    sessions = storage.scoped_session
    sessions.remove()
    sessions().bind = connection
    try:
        yield
    finally:
        sessions.remove()


def cause_of(error: BaseException) -> BaseException:
    """Returns the error of the data base that Optuna wrapped, else the error itself."""
    is_wrapped = isinstance(error, optuna.exceptions.StorageInternalError)
    return error.__cause__ if is_wrapped and error.__cause__ else error
