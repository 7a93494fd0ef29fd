"""One adapter: trained with one configuration, or loaded and met with a split again.

Imports `errors`, `run`, `comparison`, `training`, `tasks` and `tuner`; imported by the command
line.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from peft.utils import CONFIG_NAME
from safetensors import SafetensorError
from torch import nn

from ..errors import ConfigError, RunError
from ..run.hub import fetch, is_repository
from ..run.json_file import damaged, read_json
from ..tasks import Evaluation
from ..training import Training
from ..training.evaluator import SplitName
from ..training.pretrained import Method
from .comparison import save_adapter

__all__ = ["TrainedAdapter", "evaluate_adapter", "load_adapter", "train_adapter"]

# Of a message by others, which may repeat what is in the adapter.
MAX_CHARACTERS = 1000
# What PEFT raises for a configuration with values that none of its own has.
_OF_STRANGE_VALUES = (ArithmeticError, AttributeError, LookupError, SafetensorError, TypeError)


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
        ConfigError: There is no such adapter, it does not fit the model, or the model is divided
            among the processes of a launch.
        RunError: Its configuration is damaged.
    """
    model = training.pretrained.whole()
    _refuse_strange_file(_config_file(adapter))
    try:
        # sizes that the configuration only claims take no memory
        loaded = PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True)
    except (OSError, ValueError, RuntimeError, *_OF_STRANGE_VALUES) as error:
        raise ConfigError(
            f"Expected a folder or Hub repository with an adapter for {training.model}, got "
            f"{adapter!r}: {' '.join(str(error).split())[:MAX_CHARACTERS]}"
        ) from error
    return loaded.to(training.accelerator.device)


def _config_file(adapter: str) -> Path:
    """Returns where the configuration is, or would be."""
    if is_repository(adapter):
        with suppress(RunError):  # PEFT says it better, with the model that it is for
            return fetch(adapter, CONFIG_NAME)
    return Path(adapter, CONFIG_NAME)


def _refuse_strange_file(config: Path) -> None:
    """Makes sure that a configuration is a file of JSON, of sane size and depth, if it is here."""
    if config.exists() and not isinstance(read_json(config), dict):
        raise damaged(config, "it must hold an object")


def evaluate_adapter(training: Training, adapter: str, split: SplitName = "test") -> Evaluation:
    """Returns the score and loss of an adapter on a split.

    Raises:
        ConfigError: There is no such adapter, or it does not fit the model.
    """
    training.load()
    return training.evaluate(load_adapter(training, adapter), split)
