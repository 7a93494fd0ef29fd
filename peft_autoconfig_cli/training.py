"""The work of `train` and `evaluate`: one configuration, one adapter."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from peft_autoconfig import AutoPEFTConfig, Search
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.front.adapter import evaluate_adapter, train_adapter
from peft_autoconfig.run.folder import RunFolder, read_front, select_member
from peft_autoconfig.search.live import describe, quieten
from peft_autoconfig.search.trial import front_member
from peft_autoconfig.tasks import Evaluation
from peft_autoconfig.training.evaluator import SplitName

from .options import Given
from .output import write
from .recipes import recipe_told

__all__ = ["evaluate", "train"]


def train(
    given: Given,
    config: Path | None,
    source: str,
    *,
    trial: int | None,
    select: str,
    max_params: int | None,
    learning_rate: float | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Trains and saves a member of a front, and writes its scores."""
    quieten()
    is_run = Path(source).is_dir()
    member = _trial_of(source, trial) if is_run and trial is not None else None
    member = member or select_member(source, trial=trial, select=select, max_params=max_params)
    recipe = recipe_told(given, config, Path(source) if is_run else None, source)
    if output is None and not is_run:
        raise ConfigError("Expected --output, since there is no run folder; name an empty folder.")
    run = RunFolder.at(source)
    folder = Path(output) if output else run.adapter_folder(member["trial"])
    method = AutoPEFTConfig(**member["config"])
    rate = learning_rate or member["learning_rate"]
    # the processes of a launch have but this one training
    training = replace(recipe, parallel="data").training()
    with training.together() as leads:
        if not leads:
            return
        trained = train_adapter(training, method, folder, learning_rate=rate, overwrite=overwrite)
    value: dict[str, Any] = {
        "adapter": str(folder),
        "trial": member["trial"],
        "num_params": trained.num_params,
        "learning_rate": rate,
        "dev": _values(trained.dev),
        "test": _values(trained.test),
    }
    text = (
        f"Trained {describe(method)} ({trained.num_params:,} parameters): "
        f"{trained.dev.score:.4f} on search-dev, {trained.test.score:.4f} on report-test.\n"
        f"Saved in {folder}"
    )
    write(value, text, as_json=as_json)


def evaluate(
    given: Given, config: Path | None, adapter: str, *, split: SplitName | str, as_json: bool
) -> None:
    """Writes the score of an adapter on a split."""
    quieten()
    if split not in get_args(SplitName):
        raise ConfigError(f"split must be test, dev or train, got {split!r}.")
    # an adapter of a run lies in RUN/adapters/TRIAL
    run = Path(adapter).absolute().parents[1] if Path(adapter).is_dir() else None
    recipe = recipe_told(given, config, run, adapter)
    training = recipe.training()
    evaluation = evaluate_adapter(training, adapter, split)  # type: ignore[arg-type]
    examples = len(getattr(training.task, split))
    value = {"adapter": adapter, "split": split, "examples": examples, **_values(evaluation)}
    measures = ", ".join(f"{name} {score:.4f}" for name, score in evaluation.measures.items())
    write(value, f"{measures} on {examples} examples ({split})", as_json=as_json)


def _trial_of(run: str, number: int) -> dict[str, Any] | None:
    """Returns a complete trial that is not on the front, None for any other."""
    if number in {member["trial"] for member in read_front(run)}:
        return None
    records = {record.number: record for record in Search.open(run).trials}
    record = records.get(number)
    return front_member(record, None) if record and record.state == "COMPLETE" else None


def _values(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "score": evaluation.score,
        "loss": evaluation.loss,
        "measures": dict(evaluation.measures),
    }
