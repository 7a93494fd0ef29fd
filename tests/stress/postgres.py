"""A PostgreSQL server of one's own, from the system's packages, in a temporary folder."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

__all__ = ["PASSWORD", "Server", "free_port", "missing"]

# Only ever valid on a server that lives as long as a test.
PASSWORD = "s3cret-Pa55word"

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
fsync = off
max_connections = {connections}
"""


def missing() -> str | None:
    """Returns why no server can be started here; None if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL refuses to run as root, and there is no runuser"
    return None


class Server:
    """A running server; it ends with the block.

    Args:
        connections: How many it takes at once.
        folder: Where its data go; a temporary one by default.
    """

    def __init__(self, *, connections: int = 100, folder: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="pg", dir=folder)
        self.folder = Path(self._temporary.name)
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._call("initdb", "-D", self._data, "-U", "searcher", "--auth=trust", "-E", "UTF8")
        settings = _SETTINGS.format(folder=self.folder, port=self.port, connections=connections)
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(settings)
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)

    @property
    def url(self) -> str:
        """An address without a password, through a socket in the file system."""
        return f"postgresql+psycopg2://searcher@/search?host={self.folder}&port={self.port}"

    @property
    def secret_url(self) -> str:
        """An address with a password in it."""
        return f"postgresql+psycopg2://searcher:{PASSWORD}@127.0.0.1:{self.port}/search"

    def __enter__(self) -> "Server":
        self.start()
        self.sql(f"ALTER ROLE searcher PASSWORD '{PASSWORD}'", "postgres")
        self.sql("CREATE DATABASE search", "postgres")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._temporary.cleanup()

    def start(self) -> None:
        self._call("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Ends the server as a crash would: it has to recover at the next start."""
        self._call("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop", check=False)

    def sql(
        self,
        statement: str,
        database: str = "search",
        *,
        port: int | None = None,
        check: bool = True,
    ) -> str:
        """Returns what a statement gives, as text.

        Args:
            statement: The statement.
            database: Name of the data base.
            port: That of another program which has its socket in our folder.
            check: Whether an error raises; else it is what is returned.
        """
        where = ("-h", str(self.folder), "-p", str(port or self.port))
        options = (*where, "-U", "searcher", "-d", database, "-c", statement)
        return self._call("psql", "-X", "-q", "-t", "-A", *options, check=check)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _call(self, program: str, *arguments: str, check: bool = True) -> str:
        programs = _programs()
        assert programs is not None
        command = [str(programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # to a file: the server would hold a pipe open for as long as it lives; and to one on
        # another disk than the server's, which may be full
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, cwd="/", check=False
            )
            output.seek(0)
            text = output.read().strip()
        if check and done.returncode:
            raise RuntimeError(f"{program} failed: {text}")
        return text


def _programs() -> Path | None:
    """Returns the folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found += [Path(file).parent for file in (shutil.which("initdb"),) if file]
    needed = ("initdb", "pg_ctl", "psql")
    return next((f for f in found if all((f / name).exists() for name in needed)), None)


def free_port() -> int:
    """Returns a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
