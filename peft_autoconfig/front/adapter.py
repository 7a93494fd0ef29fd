"""One adapter: trained with one configuration, or loaded and met with a split again.

Imports `errors`, `comparison`, `training`, `tasks` and `tuner`; imported by the command line.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from torch import nn

from ..errors import ConfigError, RunError
from ..tasks import Evaluation
from ..training import Training
from ..training.pretrained import Method
from ..training.training import SplitName
from .comparison import save_adapter

__all__ = ["TrainedAdapter", "evaluate_adapter", "load_adapter", "train_adapter"]


@dataclass(frozen=True)
class TrainedAdapter:
    """What training one configuration gave.

    Attributes:
        folder: Where the adapter is.
        num_params: Trained parameters, the head left out.
        dev: Score and loss on the search-dev split.
        test: Score and loss on the report-test split.
    """

    folder: Path
    num_params: int
    dev: Evaluation
    test: Evaluation


def train_adapter(
    training: Training,
    method: Method,
    folder: Path,
    *,
    learning_rate: float | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> TrainedAdapter:
    """Trains one configuration and saves it as an ordinary PEFT adapter.

    Args:
        training: How it is trained, and on what.
        method: A PEFT configuration.
        folder: Where the adapter goes; its parent folders are made.
        learning_rate: Peak rate; None takes the plan's.
        seed: Seed; None takes the training's.
        overwrite: Whether an adapter that is there is replaced.

    Raises:
        RunError: There is something in the way.
        TrainingError: The loss became infinite or NaN.
    """
    if folder.exists() and not overwrite:
        raise RunError(f"{folder} is there already; give another folder, or ask to overwrite it.")
    training.load()
    seed = training.seed if seed is None else seed
    model = training.train(method, learning_rate=learning_rate, seed=seed)
    dev, test = training.evaluate(model, "dev"), training.evaluate(model, "test")
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(model, folder)
    return TrainedAdapter(folder, training.pretrained.num_params(model), dev, test)


def load_adapter(training: Training, adapter: str) -> nn.Module:
    """Returns the base model of ``training`` with an adapter of a folder or of the Hub.

    Raises:
        ConfigError: There is no such adapter, or it does not fit the model.
    """
    model = copy.deepcopy(training.pretrained.model)
    try:
        loaded = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"Expected a folder or Hub repository with an adapter for {training.model}, got "
            f"{adapter!r}: {' '.join(str(error).split())}"
        ) from error
    return loaded.to(training.accelerator.device)


def evaluate_adapter(training: Training, adapter: str, split: SplitName = "test") -> Evaluation:
    """Returns the score and loss of an adapter on a split.

    Raises:
        ConfigError: There is no such adapter, or it does not fit the model.
    """
    training.load()
    return training.evaluate(load_adapter(training, adapter), split)
