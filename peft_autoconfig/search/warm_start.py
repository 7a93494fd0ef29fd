"""What earlier searches of other tasks tell one that begins: read, checked, kept with its facts.

Their evaluations are copied into the identity of the search. So whoever goes on with it proposes
alike, on whatever machine, with the option or without, and whatever became of the earlier runs.

Imports `errors`, `run`, `space` and, late, `sampler` and `search`; imported by `search`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from ..errors import ConfigError
from ..run.folder import RunFolder
from ..run.identity import strange_facts
from ..run.json_file import brief, damaged
from ..space import SearchSpace

if TYPE_CHECKING:
    from ..sampler import EarlierRun

__all__ = ["earlier_facts", "sampler_for"]

Runs = Sequence[str | os.PathLike[str]]


def earlier_facts(
    runs: Runs, space: SearchSpace, about: dict[str, Any], folder: RunFolder
) -> list[dict[str, Any]] | None:
    """Returns what earlier runs have found, as a search keeps it; None if none are given.

    Where ``folder`` holds a search that began from runs of the same names, it is what they had
    found then, and they are not looked at.

    Args:
        runs: Run folders of earlier searches.
        space: The space of the search that begins.
        about: Its facts.
        folder: Its run folder.

    Raises:
        ConfigError: One of them is the folder itself, or has another base model.
        RunError: One of them is no run folder, or is damaged.
    """
    if not runs:
        return None
    paths = [Path(run).absolute() for run in runs]
    names = [path.name for path in paths]
    if folder.identity_file.exists():
        kept: list[dict[str, Any]] = folder.identity().get("earlier", [])
        # where the names differ, whoever claims the folder is refused
        return kept if [run["run"] for run in kept] == names else [_kept(name) for name in names]
    for path in paths:
        if path.resolve() == folder.path.resolve():
            raise ConfigError(f"The search in {path} cannot start from itself; name another one.")
        _refuse_other_model(path, RunFolder.at(path).identity(), space, about)
    return [_read(path, space) for path in paths]


def sampler_for(space: SearchSpace, seed: int, facts: dict[str, Any], where: str) -> BaseSampler:
    """Returns our sampler for a search, with what its facts hold of earlier runs.

    Raises:
        RunError: What they hold cannot be read.
    """
    # Late, since looking at a run needs no sampler.
    from ..sampler import BayesianSampler, TransferSampler

    runs = _runs_of(facts, space, where)
    if any(len(run.scores) for run in runs):
        return TransferSampler(space, runs, seed=seed)
    return BayesianSampler(space, seed=seed)


def _refuse_other_model(
    path: Path, identity: dict[str, Any], space: SearchSpace, about: dict[str, Any]
) -> None:
    here = _model_facts(space.to_dict(), about)
    there = _model_facts(identity["space"], identity["about"])
    names = ["num_layers", "hidden_size", "key_value_size"]
    names += ["model"] if here["model"] and there["model"] else ["num_base_params"]
    wrong = [
        f"{name} is {brief(there[name])} there and {brief(here[name])} here"
        for name in names
        if None not in (here[name], there[name]) and here[name] != there[name]
    ]
    if wrong:
        raise ConfigError(
            f"The earlier run {path} is of another base model: {'; '.join(wrong)}. What is good "
            f"there says nothing of this model; start from runs of the same one, or from none."
        )


def _model_facts(space: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Returns what is known of the base model of a search, None for what is not."""
    facts = {**about, **space}
    names = ("num_layers", "hidden_size", "num_base_params")
    model = about.get("model")
    return {name: facts.get(name) for name in names} | {
        "key_value_size": space.get("key_value_size") or space.get("hidden_size"),
        # the same one may lie in another folder, or be named without its owner
        "model": Path(model).name if isinstance(model, str) else None,
    }


def _read(path: Path, space: SearchSpace) -> dict[str, Any]:
    from ..sampler import EarlierRun
    from .search import Search  # late: it imports this module

    earlier = Search.open(path)
    evaluations = []
    for record in earlier.trials:
        if record.state == "COMPLETE" and record.config is not None and record.score is not None:
            params = earlier.space.params(record.config, record.learning_rate)
            evaluations.append((params, record.score))
    run = EarlierRun.of(path.name, evaluations, space, searched=earlier.space)
    return _kept(path.name, _levels_of(run, space), run.scores.tolist())


def _kept(name: str, points: Sequence[str] = (), scores: Sequence[float] = ()) -> dict[str, Any]:
    return {"run": name, "points": list(points), "scores": list(scores)}


def _levels_of(run: "EarlierRun", space: SearchSpace) -> list[str]:
    """Returns the level of every dimension, as text since JSON gives each number a line."""
    levels = np.rint(run.points * (_num_levels(space) - 1)).astype(int)
    return [" ".join(map(str, row)) for row in levels.tolist()]


def _runs_of(facts: dict[str, Any], space: SearchSpace, where: str) -> list["EarlierRun"]:
    from ..sampler import EarlierRun

    if wrong := strange_facts({"seed": 0, "space": {}, **facts}):
        raise damaged(Path(where), wrong)
    most = _num_levels(space) - 1
    runs = []
    for run in facts.get("earlier", []):
        try:
            levels = np.array([point.split() for point in run["points"]], dtype=int)
            levels = levels.reshape(len(run["points"]), len(most))
        except (ValueError, OverflowError) as error:
            raise damaged(Path(where), f"an earlier run has no such point: {error}") from error
        points = levels / np.maximum(most, 1)
        is_inside = ((levels >= 0) & (levels <= most)).all()
        if len(points) and not (is_inside and (space.count_params(points) > 0).all()):
            raise damaged(Path(where), "an earlier run has a point outside the space")
        runs.append(EarlierRun(run["run"], points, np.array(run["scores"], dtype=float)))
    return runs


def _num_levels(space: SearchSpace) -> Any:
    return np.array([len(choices) for choices in space.dimensions.values()])
