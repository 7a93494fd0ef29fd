"""Addresses of a shared store: checked, and without what must not be written down.

A password may stand in the address or in an environment variable, where `ps` does not show it. It
goes to the driver and nowhere else: what is stored, logged or said in errors is `public`.

Imports `errors`; imported by `database`, `search` and `recipe`.
"""

import os
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigError

__all__ = ["PASSWORD_VARIABLE", "public", "secrets_of"]

PASSWORD_VARIABLE = "PEFT_AUTOCONFIG_STORAGE_PASSWORD"

# Of the options in an address those are written down that are known to hold no secret.
_PUBLIC_OPTIONS = frozenset(
    "application_name channel_binding connect_timeout dbname gssencmode host hostaddr options "
    "passfile port service sslcert sslkey sslmode sslrootcert target_session_attrs user".split()
)

# What SQLAlchemy takes for psycopg 3, or not at all, means the driver that the extra installs.
_DRIVERS = {"postgres": "postgresql+psycopg2", "postgresql": "postgresql+psycopg2"}


def _full_url(storage: str) -> URL:
    """Returns an address with its driver, and as it was given otherwise.

    Raises:
        ConfigError: It is none of a PostgreSQL data base; the message repeats nothing of it.
    """
    try:
        url = make_url(storage)
    # ValueError comes of a port that is no number, and its text would repeat it.
    except (ArgumentError, ValueError):
        url = None
    if url is not None:
        url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url is None or url.get_backend_name() != "postgresql":
        raise ConfigError(
            "storage must be an address like postgresql+psycopg2://user@host/database (it is not "
            "repeated here, as it may hold a password); leave it out to keep the trials in the run "
            "folder."
        )
    return url


def public(storage: str) -> str:
    """Returns an address as it may be written down: without password and unknown options."""
    url = _full_url(storage)
    options = {name: value for name, value in url.query.items() if name in _PUBLIC_OPTIONS}
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, options)
    return bare.render_as_string(hide_password=True)


def secrets_of(storage: str) -> dict[str, Any]:
    """Returns what `public` leaves out of an address, as arguments of the driver.

    The password is that in the address, else that of the environment. Without one the driver looks
    where its own users put it: ``PGPASSWORD``, ``~/.pgpass``.
    """
    url = _full_url(storage)
    secrets = {name: value for name, value in url.query.items() if name not in _PUBLIC_OPTIONS}
    password = url.password or os.environ.get(PASSWORD_VARIABLE)
    return secrets | ({"password": password} if password else {})
