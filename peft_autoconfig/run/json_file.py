"""JSON files of a run folder: written as a whole, read with suspicion.

A file may have been cut off by a crash, edited by hand or sent by a stranger. So a write replaces
the file in one step, and a read takes nothing but a regular file of sane size with valid JSON.

Imports `errors`; imported by `folder` and `front`.
"""

import json
import os
import reprlib
import stat
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RunError

__all__ = [
    "brief",
    "damaged",
    "partial_path",
    "plain",
    "read_json",
    "refuse_link",
    "refuse_odd_file",
    "unusable",
    "write_json",
]

# A front of 10,000 members takes about 5 MB; whatever is far larger was not written here.
MAX_JSON_BYTES = 32 * 2**20

# Its own default, six levels of six entries, makes messages of 400,000 characters.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Replaces a file as a whole: a reader, or a crash, sees the old text or the new one.

    Raises:
        RunError: The file cannot be written.
    """
    partial = partial_path(file)
    try:
        # A link that somebody planted there would have us write over another file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(partial, flags, 0o666), "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        raise unusable(file.parent, error) from error


def partial_path(file: Path) -> Path:
    """Returns where `write_json` gathers the new text; a crash may leave that file behind."""
    return file.with_name(f".{file.name}.tmp")


def read_json(file: Path) -> Any:
    """Returns the value that a JSON file holds.

    Raises:
        RunError: There is no such file, or it cannot be read, is oversized or no valid JSON.
    """
    try:
        refuse_odd_file(file)
        return json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise RunError(
            f"{file} does not exist: {file.parent} is no run folder, or no trial has finished "
            f"there yet; give the folder of a search."
        ) from error
    except OSError as error:
        raise unusable(file.parent, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"it is no valid JSON ({error})") from error


def refuse_odd_file(file: Path, max_bytes: int = MAX_JSON_BYTES) -> None:
    """Makes sure, before a file is opened, that it can be read to its end.

    A named pipe would block, a device would never end.

    Raises:
        RunError: It is not a regular file of sane size.
        OSError: There is none, or it is out of reach.
    """
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise damaged(file, "it is not a regular file")
    if facts.st_size > max_bytes:
        raise damaged(file, f"it has {facts.st_size} bytes, more than {max_bytes}")


def refuse_link(file: Path) -> None:
    """Makes sure that a file to be written is no symbolic link, which may lead anywhere.

    Raises:
        RunError: It is.
    """
    if file.is_symlink():
        raise damaged(file, "it must be a file of its own and is a symbolic link")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a value as JSON gives it back, so that tuples equal the lists on disk.

    Raises:
        ConfigError: It is not JSON-compatible.
    """
    try:
        result: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The facts about a search must be JSON-compatible ({error}); give plain strings, "
            f"finite numbers, lists and dictionaries."
        ) from error
    return result


def brief(value: Any) -> str:
    """Returns the beginning of what a stranger's value looks like, for a message."""
    return _BRIEF.repr(value)


def damaged(file: Path, what: str) -> RunError:
    """Returns the error for a file that does not hold what it should."""
    return RunError(f"{file} is damaged: {what}; restore it, or give another folder.")


def unusable(path: Path, error: OSError) -> RunError:
    """Returns the error for a folder that the operating system refuses."""
    return RunError(
        f"The run folder {path} cannot be used: {error.strerror or error}; give a folder that "
        f"can be written."
    )
