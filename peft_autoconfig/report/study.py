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
from ..search.database import place_of
from ..search.place import SQLITE_TIMEOUT_SECONDS, STUDY_NAME

__all__ = ["read_trials"]


def read_trials(folder: RunFolder) -> list[FrozenTrial]:
    """Returns the trials of a run by number; none if the search has not begun.

    Raises:
        RunError: The study cannot be read.
    """
    file = folder.study_file
    storage = folder.identity().get("storage") if folder.identity_file.exists() else None
    if storage is None and not file.exists():
        return []
    try:
        if storage is not None:
            place = place_of(folder, storage)
            return _trials(place.open(), place.study_name)
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
            f"The trials in {storage or file} cannot be read ({error}); restore them, use the "
            "version of Optuna that wrote them, or give another folder."
        ) from error


def _read(file: Path, mode: str) -> list[FrozenTrial]:
    """Returns the trials in a file that is opened as SQLite's ``mode`` says, and closed again."""
    # Quoted for SQLite, which reads the file's name as a URI; then again as part of the storage's.
    query = {"mode": mode, "uri": "true"}
    url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
    waiting = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    return _trials(RDBStorage(url.render_as_string(), engine_kwargs=waiting), STUDY_NAME)


def _trials(storage: RDBStorage, study_name: str) -> list[FrozenTrial]:
    """Returns the trials of a study, and closes the storage."""
    try:
        study = storage.get_study_id_from_name(study_name)
        trials: list[FrozenTrial] = storage.get_all_trials(study, deepcopy=False)
    finally:
        storage.engine.dispose()
    return trials
