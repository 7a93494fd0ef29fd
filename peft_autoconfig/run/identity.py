"""Whose search a run is: its facts, their format version, and the refusal of another search.

The same facts stand in ``search.json`` of a run folder and, where several machines share a data
base, in the study there.

Imports `errors` and `json_file`; imported by `folder` and `search`.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from .json_file import brief, damaged, plain, read_json

__all__ = ["FORMAT", "identity_of", "read_versioned", "refuse_other_search", "strange_facts"]

logger = logging.getLogger(__name__)

# Raised whenever a reader of the older layout would misunderstand the newer one.
FORMAT = 1

# Far beyond any search: more would only fill the memory or the time of whoever opens it.
MAX_LAYERS, MAX_NUMBER, MAX_COMBINATIONS, MAX_SEED = 4096, 10**12, 10**7, 2**64


def identity_of(
    *,
    space: dict[str, Any],
    about: dict[str, Any],
    seed: int,
    storage: str | None,
    earlier: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the facts of a search as JSON gives them back; see `RunFolder.claim`.

    Raises:
        ConfigError: They are not JSON-compatible.
    """
    facts: dict[str, Any] = {"format": FORMAT, "space": space, "about": about, "seed": seed}
    given = {"storage": storage, "earlier": earlier}
    return plain(facts | {name: value for name, value in given.items() if value is not None})


def read_versioned(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a run folder.

    Raises:
        RunError: The file is missing, damaged, or of another format version.
    """
    value = read_json(file)
    if not isinstance(value, dict):
        raise damaged(file, "it must hold an object")
    _refuse_other_format(str(file), value)
    return value


def refuse_other_search(where: str, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Makes sure that two identities are of one search; another seed is only mentioned.

    Args:
        where: The place of ``stored``, for the message.
        stored: The identity that is there.
        current: The identity of the search that begins; an address of a data base, or earlier runs,
            that it does not give are taken from ``stored``.

    Raises:
        RunError: They differ, or ``stored`` has another format version.
    """
    _refuse_other_format(where, stored)
    keys = ["space", "about"] + (["storage"] if "storage" in current else [])
    differences = [
        line for key in keys for line in _differences(stored.get(key), current[key], key)
    ]
    if "earlier" in current:
        # what they had found when the search began is kept there; they may have gone on since
        differences += _differences(_names(stored), _names(current), "warm start")
    if differences:
        raise RunError(
            f"{where} belongs to another search: {'; '.join(differences)}. Give another folder "
            f"for this search, or the old settings to go on with that one."
        )
    if stored.get("seed") != current["seed"]:
        logger.warning(
            "%s was begun with seed %s; new proposals use seed %s.",
            where,
            stored.get("seed"),
            current["seed"],
        )


def strange_facts(stored: dict[str, Any]) -> str | None:
    """Returns what of an identity that was read cannot be meant, whatever the space says of it."""
    seed = stored.get("seed")
    if not _is_number(seed, MAX_SEED) or not isinstance(seed, int):
        return f"'seed' is {brief(seed)}"
    if not isinstance(stored.get("storage", ""), str):
        return "'storage' must be an address"
    if not _are_runs(stored.get("earlier", [])):
        return "'earlier' must list runs with their points and scores"
    combinations = 1
    for name, value in stored["space"].items():
        entries = value if isinstance(value, list) else [value]
        combinations *= max(1, len(entries))
        limit = MAX_LAYERS if name == "num_layers" else MAX_NUMBER
        if combinations > MAX_COMBINATIONS or not all(
            entry is None or isinstance(entry, str) or _is_number(entry, limit) for entry in entries
        ):
            return f"the space's {brief(name)} is {brief(value)}"
    return None


def _names(identity: dict[str, Any]) -> list[str]:
    """Returns what the earlier runs of a search are called."""
    runs = identity.get("earlier", [])
    return [str(run.get("run")) for run in runs if isinstance(run, dict)]


def _are_runs(value: Any) -> bool:
    """Returns whether a value has the form of earlier runs; their points belong to the space."""
    return isinstance(value, list) and all(
        isinstance(run, dict)
        and isinstance(run.get("run"), str)
        and isinstance(run.get("points"), list)
        and isinstance(run.get("scores"), list)
        and len(run["points"]) == len(run["scores"])
        and all(isinstance(point, str) for point in run["points"])
        and all(_is_finite(score) for score in run["scores"])
        for run in value
    )


def _is_finite(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # also of an int that is too large for a float


def _is_number(value: Any, limit: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= limit


def _refuse_other_format(where: str, value: dict[str, Any]) -> None:
    if value.get("format") != FORMAT:
        raise RunError(
            f"{where} has format version {brief(value.get('format'))}, this version of "
            f"peft_autoconfig reads {FORMAT}; use the version that wrote it, or another folder."
        )


def _differences(stored: Any, current: Any, key: str) -> list[str]:
    if isinstance(stored, dict) and isinstance(current, dict):
        return [
            line
            for name in sorted(stored.keys() | current.keys())
            for line in _differences(stored.get(name), current.get(name), f"{key}.{name}")
        ]
    if stored == current:
        return []
    return [f"{key} is {brief(stored)} there and {brief(current)} here"]
