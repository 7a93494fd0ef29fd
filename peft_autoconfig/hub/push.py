"""The way to the Hub: what of a run is uploaded, and how an upload survives a bad line.

    README.md                       the model card
    adapter_config.json, adapter_model.safetensors      the chosen member
    adapters/<trial>/               the same of every member, if the whole front is pushed
    front.json                      the pushed members, as `AutoPEFTConfig.from_search` reads them
    search.json                     space, facts and seed of the search, and its whole front

Nothing else of a run folder leaves it, and paths of this machine are left out. Tokens are
huggingface_hub's affair (`hf auth login`, HF_TOKEN); nothing here sees or writes one.

Imports `errors`, `card`, `report`, `run` and `search`; imported by the command line.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..errors import ConfigError, HubError, RunError
from ..report.findings import Findings, read_findings
from ..run.folder import FORMAT, read_front, select_member
from ..run.json_file import damaged, read_json, refuse_link
from ..search.trial import TrialRecord, front_member
from .card import model_card

__all__ = ["Pushed", "push"]

logger = logging.getLogger(__name__)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes:
        repo_id: The repository, ``user/name``.
        url: Its page.
        commit: The commit that holds the upload.
        trials: Numbers of the members whose adapters are in it; the first one is at the root.
        files: Names of the files in it that this upload wrote.
    """

    repo_id: str
    url: str
    commit: str
    trials: tuple[int, ...]
    files: tuple[str, ...]


def push(
    run: str | os.PathLike[str],
    repo_id: str,
    *,
    trial: int | None = None,
    select: str = "score",
    max_params: int | None = None,
    whole_front: bool = False,
    base_model: str | None = None,
    private: bool | None = None,
    api: HfApi | None = None,
) -> Pushed:
    """Uploads a winner of a run, or its whole front, to a model repository of the Hub.

    The repository is made if it is missing. What is uploaded already is not sent again, so that a
    push that broke off may simply be repeated; passing faults are retried here.

    Args:
        run: Run folder of a search whose adapters were trained.
        repo_id: ``user/name``.
        trial: Number of the member to push; None chooses.
        select: How to choose, as in `run.folder.choose`.
        max_params: Only members with at most so many parameters.
        whole_front: Whether all members whose adapters are trained come along.
        base_model: Hub id of the base model; None takes the search's, if it is one.
        private: Whether a new repository is private; None takes the account's default.
        api: The Hub; None takes huggingface_hub's defaults.

    Raises:
        ConfigError: The base model has no Hub id, or the repository's name is none.
        RunError: The run folder is unusable, or an adapter was not trained yet.
        HubError: The Hub refuses, or cannot be reached after several attempts.
    """
    _check_name(repo_id)
    findings = read_findings(run)
    chosen = _chosen(findings, run, trial=trial, select=select, max_params=max_params)
    members = _members(findings, chosen, whole_front)
    base = base_model or findings.model
    if base is None or _MODEL_ID.fullmatch(base) is None or Path(base).exists():
        raise ConfigError(
            f"Expected base_model (--base-model), the Hub id of the model that was adapted, since "
            f"the search knows it as {base!r}."
        )
    files = _files(findings, chosen, members, repo_id=repo_id, base_model=base)
    api = api or HfApi()
    commit = _retried(lambda: _upload(api, repo_id, files, private), repo_id)
    return Pushed(
        repo_id=repo_id,
        url=f"{api.endpoint}/{repo_id}",
        commit=commit,
        trials=(chosen.number, *(m.number for m in members if m.number != chosen.number)),
        files=tuple(sorted(files)),
    )


def _check_name(repo_id: str) -> None:
    if _REPOSITORY.fullmatch(repo_id) is None:
        raise ConfigError(f"Expected a repository as user/name, got {repo_id!r}.")


def _chosen(findings: Findings, run: str | os.PathLike[str], **how: Any) -> TrialRecord:
    number = select_member(findings.folder.path, **how)["trial"]
    return next(member for member in findings.front if member.number == number)


def _members(findings: Findings, chosen: TrialRecord, whole_front: bool) -> list[TrialRecord]:
    """Returns the members that are pushed, fewest parameters first."""
    members = list(findings.front) if whole_front else [chosen]
    missing = [m.number for m in members if not _adapter(findings, m, WEIGHTS).is_file()]
    if missing:
        raise RunError(
            f"No adapter was trained yet for {'trial' if len(missing) == 1 else 'trials'} "
            f"{', '.join(map(str, missing))} of {findings.run}; train "
            f"{'it' if len(missing) == 1 else 'each'} first: peft-autoconfig train {findings.run} "
            f"--trial {missing[0]}."
        )
    return members


def _files(
    findings: Findings,
    chosen: TrialRecord,
    members: Sequence[TrialRecord],
    *,
    repo_id: str,
    base_model: str,
) -> dict[str, bytes | Path]:
    """Returns the content of each file of the repository, by its name there."""
    config = _adapter_config(findings, chosen, base_model)
    card = model_card(
        findings,
        chosen,
        members,
        repo_id=repo_id,
        base_model=base_model,
        task_type=config.get("task_type"),
    )
    places = {"": chosen}
    if len(members) > 1:
        places |= {f"adapters/{member.number}/": member for member in members}
    files: dict[str, bytes | Path] = {
        "README.md": str(card).encode(),
        "front.json": _json({"format": FORMAT, "front": _front(findings, members)}),
        "search.json": _json(_search(findings, base_model)),
    }
    for place, member in places.items():
        files[place + CONFIG] = _json(_adapter_config(findings, member, base_model))
        files[place + WEIGHTS] = _adapter(findings, member, WEIGHTS)
    return files


def _adapter(findings: Findings, member: TrialRecord, name: str) -> Path:
    file = findings.folder.adapter_folder(member.number) / name
    for place in (file.parent, file):
        refuse_link(place)  # what it leads to may be anything, and would be uploaded
    return file


def _adapter_config(findings: Findings, member: TrialRecord, base_model: str) -> dict[str, Any]:
    file = _adapter(findings, member, CONFIG)
    config = read_json(file)
    if not isinstance(config, dict):
        raise damaged(file, "it must hold an object")
    return config | {"base_model_name_or_path": base_model}


def _front(findings: Findings, members: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    return [front_member(member, findings.num_base_params) for member in members]


def _search(findings: Findings, base_model: str) -> dict[str, Any]:
    about = _without_paths(findings.about)
    if "model" in about:
        about["model"] = base_model
    return {
        "format": FORMAT,
        "space": findings.space.to_dict(),
        "about": about,
        "seed": findings.seed,
        "trials": {
            "complete": len(findings.complete),
            "failed": len(findings.records("FAIL")),
            "seconds": sum(record.seconds or 0.0 for record in findings.complete),
        },
        "front": read_front(findings.folder.path),
    }


def _without_paths(value: Any) -> Any:
    """Returns a value with absolute paths cut down to their last names."""
    if isinstance(value, dict):
        return {name: _without_paths(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _upload(api: HfApi, repo_id: str, files: dict[str, bytes | Path], private: bool | None) -> str:
    """Uploads the files in one commit and returns it; once there, they are not sent again."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.create_commit(
        repo_id,
        [CommitOperationAdd(name, content) for name, content in sorted(files.items())],
        commit_message="Add what a search of peft_autoconfig found",
    )
    return str(commit.oid)


def _retried(action: Callable[[], Result], repo_id: str) -> Result:
    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Exception as error:  # huggingface_hub raises a dozen types, of two HTTP libraries
            if not _is_passing(error):
                raise _refusal(error, repo_id) from error
            if attempt == ATTEMPTS:
                raise HubError(
                    f"{repo_id} could not be uploaded in {ATTEMPTS} attempts ({_reason(error)}); "
                    f"the same command goes on later, what is uploaded is not sent again."
                ) from error
            logger.warning("Upload interrupted (%s); again in %.0f s.", _reason(error), wait)
            time.sleep(wait)
            wait *= 2
    raise AssertionError("unreachable")


def _is_passing(error: BaseException | None) -> bool:
    """Returns whether the same request may well succeed later."""
    if error is None:
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in PASSING_STATUS
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    if names & {("httpx", "TransportError"), ("httpx2", "TransportError")}:
        return True
    # a gateway that answers HTML where huggingface_hub reads JSON
    if isinstance(error, ConnectionError | TimeoutError | json.JSONDecodeError):
        return True
    # huggingface_hub wraps what happened to a single file
    return isinstance(error, RuntimeError) and _is_passing(error.__cause__)


def _refusal(error: Exception, repo_id: str) -> Exception:
    """Returns an error that says what to do about a refused upload; a fault of ours as it is."""
    if not isinstance(error, HfHubHTTPError | ValueError | RuntimeError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    todo = {
        401: "log in with `hf auth login`, or set HF_TOKEN",
        403: "use a token that may write, and a user or organisation of yours",
    }.get(status or 0, "mend what it says and run the same command again")
    return HubError(f"The Hub refuses the upload to {repo_id} ({_reason(error)}); {todo}.")


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
