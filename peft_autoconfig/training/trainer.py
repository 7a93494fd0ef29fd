"""The work of a training in one process: load, tokenise, train, evaluate; alike in all of a team.

Imports `errors`, `tasks`, `tuner` and what lies beside it; imported by `training`.
"""

import logging
from collections.abc import Sequence
from functools import cached_property

from accelerate import Accelerator
from accelerate.utils import set_seed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from ..tasks import Evaluation, Task
from ..tasks.kind import Example
from ..tuner.placement import find_layers
from .checkpoint import Checkpoint
from .evaluator import Evaluator, SplitName
from .fit import Fit, Observer
from .lower_layers import LowerLayers
from .plan import TrainingPlan
from .pretrained import Method, Pretrained
from .team import Team

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

# between the seeds of dropout in the processes of a team; no two searches come that near
SEEDS_APART = 2**24


class Trainer:
    """Trains and evaluates models on one task.

    Args:
        model: Local folder or Hub id of the pretrained model.
        task: The task.
        plan: The plan of every training.
        accelerator: The device and the precision.
        team: The processes that train together; all have to call the same methods.

    Attributes:
        micro_batch_size: Examples that go through the model at once; None for all of a process.
    """

    def __init__(
        self, model: str, task: Task, plan: TrainingPlan, accelerator: Accelerator, team: Team
    ) -> None:
        self.micro_batch_size = plan.micro_batch_size
        self._model = model
        self._task = task
        self._plan = plan
        self._accelerator = accelerator
        self._team = team
        self._tokenised: dict[str, list[Example]] = {}

    @cached_property
    def pretrained(self) -> Pretrained:
        """The model and its tokenizer, loaded when they are first needed.

        Raises:
            ConfigError: The model cannot be loaded, or cannot be divided as the launch asks for.
            PlacementError: The model has no layout that our parts fit into.
        """
        pretrained = Pretrained.load(self._model, self._task)
        find_layers(pretrained.model)
        if self._team.divides:
            return pretrained.divided(self._team, self._accelerator.device)
        return pretrained

    @cached_property
    def _lower_layers(self) -> LowerLayers | None:
        # layers that are divided have to run in all processes alike
        return None if self._team.divides else LowerLayers(self.pretrained)

    def load(self) -> None:
        """Loads the model and tokenises the data.

        Raises:
            ConfigError: The model cannot be loaded, or cannot be divided as the launch asks for.
            PlacementError: The model has no layout that our parts fit into.
            TaskError: The tokenizer does not fit the task.
        """
        with self._team.attempt():
            for split in ("train", "dev", "test"):
                self.examples(split)

    def examples(self, split: SplitName) -> list[Example]:
        """Returns the tokenised examples of a split."""
        if split not in self._tokenised:
            self._tokenised[split] = self._task.tokenize(
                getattr(self._task, split),
                self.pretrained.tokenizer,
                max_length=self._plan.max_length,
            )
        return self._tokenised[split]

    def untrained(self) -> nn.Module:
        """Returns the model as it is before any training."""
        with self._team.attempt():
            return self.pretrained.untrained(self._accelerator.device)

    def train(
        self,
        method: Method,
        learning_rate: float,
        seed: int,
        checkpoint: Checkpoint,
        observe: Observer | None,
    ) -> nn.Module:
        """Returns the model that training by ``method`` gives.

        Raises:
            TrainingError: The loss became infinite or NaN.
        """
        while True:
            try:
                return self._attempt(method, learning_rate, seed, checkpoint, observe)
            except RuntimeError as error:
                self._halve_micro_batch(error)
                checkpoint.discard()
                if self._lower_layers is not None:
                    self._lower_layers.forget()
            # only now, as the error held all that the attempt had
            clear_device_cache(garbage_collection=True)

    def fit(self) -> Fit:
        """Returns what fits a model to the training set."""
        return Fit(
            accelerator=self._accelerator,
            team=self._team,
            plan=self._plan,
            kind=self._task.kind,
            batch_of=self._batch,
            micro_batch_size=self.micro_batch_size,
        )

    def evaluate(
        self, model: nn.Module, split: SplitName, rows: Sequence[int] | None, *, alone: bool = False
    ) -> Evaluation:
        """Returns the metric and loss of ``model`` on a split, or on some rows of it.

        Args:
            model: The model.
            split: The split.
            rows: Numbers of the rows; None for all.
            alone: Whether only this process has the model.
        """
        team = Team() if alone else self._team
        size = self.micro_batch_size or self._plan.batch_size
        evaluator = Evaluator(self._accelerator, self._task, self._batch, size, self._lower_layers)
        with team.attempt():
            return evaluator(model, split, self.examples(split), rows, team)

    def _attempt(
        self,
        method: Method,
        learning_rate: float,
        seed: int,
        checkpoint: Checkpoint,
        observe: Observer | None,
    ) -> nn.Module:
        with self._team.attempt():
            set_seed(seed)
            model = self.pretrained.fresh(method, seed=seed, device=self._accelerator.device)
            if self._team.rank:  # the same weights, but dropout of its own
                set_seed(seed + SEEDS_APART * self._team.rank)
            try:
                examples = self.examples("train")
                self.fit()(model, examples, learning_rate, seed, checkpoint, observe)
            finally:
                # Accelerate keeps every optimizer that it prepared until it is told to let go
                self._accelerator.free_memory()
        return model

    def _halve_micro_batch(self, error: RuntimeError) -> None:
        size = self.micro_batch_size or -(-self._plan.batch_size // self._team.size)
        if size == 1 or not should_reduce_batch_size(error):
            raise error
        self.micro_batch_size = size // 2
        logger.warning(
            "Out of memory; training again with %d examples at once.", self.micro_batch_size
        )

    def _batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = self._task.kind.collate(examples, self.pretrained.tokenizer)
        return {name: tensor.to(self._accelerator.device) for name, tensor in batch.items()}
