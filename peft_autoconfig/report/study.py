"""The trials of a run, read from its study without writing to it.

A search may be going on, so reading waits for whoever writes. A search may have been killed while
it wrote; SQLite then has to restore the file first, which is done on a copy of it.

Imports `errors`, `run` and `search`; imported by `findings`.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from ..errors import RunError
from ..run.folder import RunFolder
from ..search.store import SQLITE_TIMEOUT_SECONDS, STUDY_NAME

__all__ = ["read_trials"]


def read_trials(folder: RunFolder) -> list[FrozenTrial]:
    """Returns the trials of a run by number; none if the search has not begun.

    Raises:
        RunError: The study cannot be read.
    """
    file = folder.study_file
    if not file.exists():
        return []
    try:
        try:
            return _read(file, "ro")
        except OperationalError:
            journal = file.with_name(f"{file.name}-journal")
            if not journal.exists():
                raise
            with folder.lock(), TemporaryDirectory() as copy:
                for part in (file, journal):
                    shutil.copy(part, copy)
                return _read(Path(copy, file.name), "rw")
    except KeyError:  # the search has made the file and not yet the study
        return []
    # RuntimeError is what Optuna raises for tables of another version, OSError comes of copying.
    except (
        SQLAlchemyError,
        optuna.exceptions.OptunaError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        raise RunError(
            f"The trials in {file} cannot be read ({error}); restore the file, use the version of "
            "Optuna that wrote it, or give another folder."
        ) from error


def _read(file: Path, mode: str) -> list[FrozenTrial]:
    """Returns the trials in a file that is opened as SQLite's ``mode`` says, and closed again."""
    # Quoted for SQLite, which reads the file's name as a URI; then again as part of the storage's.
    query = {"mode": mode, "uri": "true"}
    url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
    waiting = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    storage = RDBStorage(url.render_as_string(), engine_kwargs=waiting)
    try:
        study = storage.get_study_id_from_name(STUDY_NAME)
        trials: list[FrozenTrial] = storage.get_all_trials(study, deepcopy=False)
    finally:
        storage.engine.dispose()
    return trials
