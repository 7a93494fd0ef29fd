"""Runs on the Hub: tells a repository's name from a folder, and fetches one file of it.

A pushed run has its winners in the same ``front.json`` as a run folder, so that only the place
differs. The download is huggingface_hub's, with its cache, its retries and its offline mode.

Imports `errors`; imported by `folder`.
"""

import os
import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ..errors import RunError

__all__ = ["fetch", "is_repository"]

# user/name, and a revision after an @ if it is not the main one; no part of it climbs to a parent
_REPOSITORY = re.compile(
    r"(?!.*\.\.)(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,96}))?"
)


def is_repository(run: str | os.PathLike[str]) -> bool:
    """Returns whether a name can only mean a Hub repository: user/name, and no such folder."""
    return (
        isinstance(run, str)
        and _REPOSITORY.fullmatch(run) is not None
        and not run.startswith(".")
        and not Path(run).exists()
    )


def fetch(repository: str, name: str) -> Path:
    """Returns the local copy of a file of a Hub repository, such as ``user/name@revision``.

    Raises:
        RunError: There is no such repository or file, or it cannot be reached.
    """
    match = _REPOSITORY.fullmatch(repository)
    assert match is not None
    try:
        return Path(hf_hub_download(match["repo"], name, revision=match["revision"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"There is no folder {repository} here, and {name} of a Hub repository of that name "
            f"cannot be had ({type(error).__name__}: {reason}); give the folder of a search, or a "
            f"repository that `peft-autoconfig push` made (a private one wants `hf auth login`)."
        ) from error
