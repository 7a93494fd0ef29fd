"""A study in PostgreSQL, shared by workers on many machines.

The lock is an advisory one of the data base, held by a transaction that is the whole step. So a
worker that loses it, by a restart of the server or of the network between, has lost its right and
its means together, and what it wrote in that step is undone.

While a worker trains no connection is kept, so that it costs the server nothing.

Imports `errors`, `run`, `place`, `patience` and `storage_url`; imported by `search`.
"""

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.pool import NullPool

from ..errors import ConfigError, RunError
from ..run.folder import RunFolder
from .patience import STORE_ERRORS, text_of
from .place import FolderPlace, LockLost, Place, cause_of, joined
from .storage_url import PASSWORD_VARIABLE, public, secrets_of

__all__ = ["DatabasePlace", "place_of", "reached"]

logger = logging.getLogger(__name__)

# A network that drops packets silently is noticed within two minutes, by both sides.
_KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 90_000,  # milliseconds
}

# For one transaction: the server lets go of a lock whose holder stands still, as a paused machine
# does, and the wait for the lock is cut so that Ctrl-C is heard in between.
_SETTINGS = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)"
    for name, value in {
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "300s",
        "tcp_keepalives_idle": 30,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 6,
    }.items()
)
_LOCK_NOT_AVAILABLE = "55P03"
_SECONDS_BETWEEN_LOCK_WARNINGS = 60.0
_SECONDS_BETWEEN_LOOKS = (0.05, 0.3)

# Tables are made once for all studies of a data base.
_TABLES = "peft_autoconfig tables"


# What the server says that is busy or about to be there.
_COMING = ("too many clients", "slots are reserved", "starting up", "shutting down", "recovery")


class DatabasePlace:
    """A study in a PostgreSQL data base.

    Args:
        storage: Address of the data base.
        study_name: Name of the study, one for each search in the data base.

    Raises:
        ConfigError: The address is none, or its driver is not installed.
    """

    def __init__(self, storage: str, study_name: str) -> None:
        self._public = public(storage)
        self._study_name = study_name
        self._connect_args = _KEEPALIVE | secrets_of(storage)
        self._engine: Engine = self._make_engine()
        self._storage: RDBStorage | None = None

    @property
    def study_name(self) -> str:
        return self._study_name

    @property
    def where(self) -> str:
        return f"study {self._study_name!r} of {self._public}"

    def open(self) -> RDBStorage:
        # Optuna takes the URL for a template, so braces must be doubled.
        url = self._public.replace("{", "{{").replace("}", "}}")
        options = {"connect_args": self._connect_args, "pool_size": 1, "max_overflow": -1}
        self._storage = RDBStorage(url, engine_kwargs=options)
        self._engine = self._storage.engine
        return self._storage

    @contextmanager
    def first_lock(self) -> Iterator[None]:
        # Looks now and then instead of waiting: who waits holds a connection, and who has the lock
        # takes two more, which a pooler may not have then.
        key = {"key": _key_of(_TABLES)}
        waiting = _Waiting(self.where)
        while True:
            with self._engine.connect() as connection:
                connection.exec_driver_sql(_SETTINGS)
                found = connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), key)
                if found.scalar_one():
                    yield
                    return
            waiting.tell()
            time.sleep(random.uniform(*_SECONDS_BETWEEN_LOOKS))

    @contextmanager
    def lock(self) -> Iterator[Connection]:
        assert self._storage is not None
        with self._engine.connect() as connection:
            self._acquire(connection, f"peft_autoconfig study {self._study_name}")

            def refuse_another(_: Connection) -> None:
                # SQLAlchemy would connect anew, and go on without the lock.
                raise LockLost("the connection to the data base was lost")

            event.listen(connection, "begin", refuse_another)
            with joined(self._storage, connection):
                yield connection
                connection.commit()

    def reading(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    def rest(self) -> None:
        self._engine.dispose()

    def now(self, connection: Connection) -> float:
        statement = text("SELECT extract(epoch FROM clock_timestamp())")
        return float(connection.execute(statement).scalar_one())

    def passes(self, error: Exception) -> bool:
        passing = (OperationalError, InterfaceError, PendingRollbackError, LockLost)
        cause = cause_of(error)
        return isinstance(cause, passing) or (
            isinstance(cause, DBAPIError) and cause.connection_invalidated
        )

    def passes_at_first(self, error: Exception) -> bool:
        return self.passes(error) and any(sign in str(cause_of(error)) for sign in _COMING)

    def _make_engine(self) -> Engine:
        try:
            return create_engine(self._public, connect_args=self._connect_args, poolclass=NullPool)
        except (ImportError, NoSuchModuleError) as error:
            raise ConfigError(
                f"The driver of {self._public} is not installed ({error}); install it with: pip "
                "install psycopg2-binary"
            ) from error

    def _acquire(self, connection: Connection, name: str) -> None:
        """Waits for a lock of the data base; it ends with the transaction."""
        waiting = _Waiting(self.where)
        while True:
            try:
                connection.exec_driver_sql(_SETTINGS)
                statement = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(statement, {"key": _key_of(name)})
                return
            except OperationalError as error:
                if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
                    raise
                connection.rollback()
            waiting.tell()


class _Waiting:
    """Says now and then that a lock is still waited for."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._since = time.monotonic()

    def tell(self) -> None:
        if time.monotonic() - self._since > _SECONDS_BETWEEN_LOCK_WARNINGS:
            self._since = time.monotonic()
            logger.warning("Others hold the lock of %s; still waiting for it.", self._where)


def _key_of(name: str) -> int:
    """Returns the number by which the data base knows a lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def place_of(folder: RunFolder, storage: str | None) -> Place:
    """Returns where a run has its trials: the data base at an address, else its folder."""
    return FolderPlace(folder) if storage is None else DatabasePlace(storage, folder.path.name)


def reached(storage: str) -> str:
    """Returns an address as it may be written down, once the data base there has answered.

    Raises:
        ConfigError: It is none of a PostgreSQL data base.
        RunError: The data base cannot be reached, does not exist, or refuses the user.
    """
    place = DatabasePlace(storage, "")
    try:
        with place.reading():
            pass
    except STORE_ERRORS as error:
        if not place.passes_at_first(error):
            raise RunError(
                f"The data base {public(storage)} cannot be used: {text_of(error)}. See that it "
                f"runs, exists and is reached from here, and give the password in the address or "
                f"in {PASSWORD_VARIABLE}."
            ) from error
    return public(storage)
