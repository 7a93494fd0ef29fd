"""A PgBouncer before a server: many clients share a few connections, each for one transaction."""

import os
import shutil
import subprocess
import time

from .postgres import Server, free_port

__all__ = ["Pooler", "missing_pooler"]

_SETTINGS = """
[databases]
search = host={server.folder} port={server.port} user=searcher

[pgbouncer]
listen_port = {port}
unix_socket_dir = {server.folder}
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 100
admin_users = searcher
logfile = {server.folder}/pooler.log
"""


def missing_pooler() -> str | None:
    """Returns why no pooler can be started here; None if one can."""
    if _program() is None:
        return "PgBouncer is not installed (Debian: apt-get install pgbouncer)"
    return None


class Pooler:
    """A running pooler; it ends with the block.

    Args:
        server: The server behind it.
        connections: How many it has to the server.
    """

    def __init__(self, server: Server, *, connections: int) -> None:
        self._server, self._connections = server, connections
        self._port = free_port()

    @property
    def url(self) -> str:
        return (
            f"postgresql+psycopg2://searcher@/search?host={self._server.folder}&port={self._port}"
        )

    def __enter__(self) -> "Pooler":
        settings = self._server.folder / "pgbouncer.ini"
        text = _SETTINGS.format(server=self._server, port=self._port, connections=self._connections)
        settings.write_text(text)
        command = [str(_program()), "-q", str(settings)]
        if os.geteuid() == 0:  # which it refuses to run as
            command = ["runuser", "-u", "postgres", "--", *command]
        self._process = subprocess.Popen(command, cwd="/")
        while "search" not in self.asked("SHOW DATABASES", check=False):
            assert self._process.poll() is None, "the pooler has ended"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.asked("SHUTDOWN", check=False)
        self._process.wait()

    def asked(self, statement: str, *, check: bool = True) -> str:
        """Returns what the pooler answers to a statement of its own, as text."""
        return self._server.sql(statement, "pgbouncer", port=self._port, check=check)


def _program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
