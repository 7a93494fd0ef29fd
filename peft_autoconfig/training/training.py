"""The training of one configuration: (method, learning rate, seed) -> model -> Outcome.

A `Training` is the objective of a search: call it with a configuration. It loads the base model
and tokenises the data once, when they are first needed; all trainings share the frozen weights.
Accelerate chooses the device and the precision (`accelerate launch --mixed_precision bf16 ...`);
every process trains its own model.

Imports `errors`, `outcome`, `pretrained`, `tasks` and `tuner`; imported by `front`.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn
from transformers import PretrainedConfig, get_linear_schedule_with_warmup

from ..errors import ConfigError, TrainingError
from ..outcome import Outcome
from ..tasks import Evaluation, Task
from ..tasks.kind import Example
from ..tuner.placement import find_layers
from .pretrained import Method, Pretrained

__all__ = ["Training", "TrainingPlan"]

logger = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 128
# batches that are formed together: long enough to find examples of like length, short enough to
# keep the order of training random
BATCHES_SORTED_TOGETHER = 25
STEPS_BETWEEN_CHECKS = 20
# of a plan: what costs time or memory and leaves results of whole trainings as they are
WITHOUT_EFFECT = ("micro_batch_size", "gradient_checkpointing", "rungs")
# Of the examples of a training, the share that a rung is evaluated on, so that it takes about 3 %
# of the training's time.
RUNG_SHARE = 1 / 16

Observer = Callable[[nn.Module, int], None]
# Called with the share of the training that is done, the score and the loss; may end the training
# by an exception.
Report = Callable[[float, float, float | None], None]
SplitName = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class TrainingPlan:
    """How every configuration of a search is trained: AdamW with a linear schedule.

    Attributes:
        num_epochs: Passes over the training set, above 0.
        max_steps: Optimiser steps at most; None for as many as the epochs take.
        batch_size: Examples per step.
        max_length: Tokens kept of an example.
        learning_rate: Peak rate where a search does not choose one.
        weight_decay: AdamW's.
        warmup_fraction: Share of the steps in which the rate rises, [0, 1].
        max_grad_norm: Gradients are scaled down to at most this norm.
        micro_batch_size: Examples that go through the model at once, of the `batch_size` of a
            step; None for all. A training that runs out of memory halves it and starts again.
        gradient_checkpointing: Whether activations are computed twice rather than kept.
        rungs: Shares of the training, in (0, 1), at which a trial tells how it stands, so that a
            search may stop it.
    """

    num_epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    max_length: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_fraction: float = 0.1
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    rungs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)!r}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1 or None, got {self.max_steps!r}.")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ConfigError(
                f"micro_batch_size must be at least 1 or None, got {self.micro_batch_size!r}."
            )
        if not 0 <= self.warmup_fraction <= 1:
            raise ConfigError(f"warmup_fraction must be in [0, 1], got {self.warmup_fraction!r}.")
        if not all(0 < rung < 1 for rung in self.rungs):
            raise ConfigError(f"rungs must lie between 0 and 1, got {self.rungs!r}.")

    def num_steps(self, num_examples: int) -> int:
        """Returns the number of optimiser steps for a training set of ``num_examples``."""
        steps = max(1, round(self.num_epochs * num_examples / self.batch_size))
        return steps if self.max_steps is None else min(steps, self.max_steps)


class Training:
    """Trains and evaluates methods on one task, all by the same plan.

    Args:
        model: Local folder or Hub id of the pretrained model.
        task: The task; trials see its `train` and `dev` splits.
        plan: The plan of every training.
        seed: Seed of the trainings that a search asks for; the same for all of them, so that
            they differ in their configurations alone.

    """

    def __init__(
        self, model: str, task: Task, plan: TrainingPlan | None = None, *, seed: int = 0
    ) -> None:
        self.model = model
        self.task = task
        self.plan = plan or TrainingPlan()
        self.seed = seed
        self.accelerator = Accelerator()
        self._tokenised: dict[str, list[Example]] = {}
        self._micro_batch_size = self.plan.micro_batch_size

    @cached_property
    def pretrained(self) -> Pretrained:
        """The model and its tokenizer, loaded when they are first needed.

        Raises:
            ConfigError: The model cannot be loaded.
            PlacementError: The model has no layout that our parts fit into.
        """
        pretrained = Pretrained.load(self.model, self.task)
        find_layers(pretrained.model)
        return pretrained

    def load(self) -> None:
        """Loads the model and tokenises the data now rather than at the first training.

        So that whatever is wrong with them is an error of its own and no failed trial.

        Raises:
            ConfigError: The model cannot be loaded.
            PlacementError: The model has no layout that our parts fit into.
            TaskError: The tokenizer does not fit the task.
        """
        for split in ("train", "dev", "test"):
            self._examples(split)

    def __call__(
        self, config: Method, *, learning_rate: float | None = None, report: Report | None = None
    ) -> Outcome:
        """Returns the outcome on the search-dev split of training ``config``.

        Args:
            config: What is trained.
            learning_rate: Peak rate; None takes the plan's.
            report: Called at the plan's rungs with the score and loss on a part of search-dev;
                may end the training by an exception, which is passed on.

        Raises:
            TrainingError: The loss, or what the model gives at the end, became infinite or NaN.
        """
        started = time.perf_counter()
        observe = None if report is None else self._at_rungs(report)
        model = self.train(config, learning_rate=learning_rate, seed=self.seed, observe=observe)
        evaluation = self.evaluate(model, "dev")
        if evaluation.loss is None:
            raise TrainingError(f"The trained model is of no use: {evaluation.reason}.")
        return Outcome(
            score=evaluation.score,
            loss=evaluation.loss,
            seconds=time.perf_counter() - started,
            details={"measures": evaluation.measures},
        )

    def train(
        self,
        method: Method,
        *,
        learning_rate: float | None = None,
        seed: int,
        observe: Observer | None = None,
    ) -> nn.Module:
        """Returns the model that training by ``method`` gives.

        Args:
            method: A PEFT configuration, or one of `pretrained`'s two methods without one.
            learning_rate: Peak rate; None takes the plan's.
            seed: Seed of the head, the new parts, dropout and the order of examples. Sets the
                global generators, as dropout leaves no other way.
            observe: Called after every step with the model in training mode and the number of
                steps done; may evaluate the model, and ends the training by an exception.

        Raises:
            TrainingError: The loss became infinite or NaN.
        """
        rate = learning_rate or self.plan.learning_rate
        while True:
            set_seed(seed)
            model = self.pretrained.fresh(method, seed=seed).to(self.accelerator.device)
            try:
                self._fit(model, rate, seed, observe)
            except RuntimeError as error:
                self._halve_micro_batch(error)
            else:
                return model

    def evaluate(
        self, model: nn.Module, split: SplitName, *, rows: Sequence[int] | None = None
    ) -> Evaluation:
        """Returns the metric and loss of ``model`` on a split, or on some rows of it."""
        model.eval()
        kind, examples, labels = self.task.kind, self._examples(split), self._labels(split)
        if rows is not None:
            examples, labels = [examples[row] for row in rows], [labels[row] for row in rows]
        order = sorted(range(len(examples)), key=lambda i: kind.length(examples[i]))
        outputs: list[Any] = [None] * len(order)
        size = self._evaluation_batch_size
        with torch.inference_mode(), self.accelerator.autocast():
            for start in range(0, len(order), size):
                part = order[start : start + size]
                batch = self._batch([examples[i] for i in part])
                for i, output in zip(part, kind.predict(model, batch), strict=True):
                    outputs[i] = output
        return self.task.evaluate(outputs, labels)

    def _labels(self, split: SplitName) -> Sequence[Any]:
        return self.task.kind.labels(getattr(self.task, split), self._examples(split))

    def _at_rungs(self, report: Report) -> Observer:
        """Returns an observer that evaluates at each rung and reports it."""
        num_steps = self.plan.num_steps(len(self._examples("train")))
        fractions = {round(fraction * num_steps): fraction for fraction in self.plan.rungs}
        num_dev = len(self._examples("dev"))
        size = min(num_dev, math.ceil(RUNG_SHARE * num_steps * self.plan.batch_size))
        # the same examples in all trainings, which are compared by them
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(num_dev, generator=generator)[:size].tolist()

        def observe(model: nn.Module, step: int) -> None:
            if step in fractions and step < num_steps:
                evaluation = self.evaluate(model, "dev", rows=rows)
                report(fractions[step], evaluation.score, evaluation.loss)

        return observe

    @property
    def _evaluation_batch_size(self) -> int:
        """Examples at once; no more than in training where a token has scores of all others."""
        if not self.task.kind.writes_text:
            return EVALUATION_BATCH_SIZE
        return min(EVALUATION_BATCH_SIZE, self._micro_batch_size or self.plan.batch_size)

    @cached_property
    def model_config(self) -> PretrainedConfig:
        """The model's config, for which no weights are loaded.

        Raises:
            ConfigError: There is no such model.
        """
        return Pretrained.config(self.model)

    def about(self) -> dict[str, Any]:
        """Returns JSON-compatible facts by which a run folder knows this training again.

        Loads no weights, so that a folder of another search is refused before they are.
        """
        return {
            "model": self.model,
            "num_base_params": Pretrained.num_base_params(self.model_config),
            "task": self.task.about(),
            "plan": {n: v for n, v in asdict(self.plan).items() if n not in WITHOUT_EFFECT},
            "seed": self.seed,
            "mixed_precision": self.accelerator.mixed_precision,
        }

    def _fit(
        self, model: nn.Module, learning_rate: float, seed: int, observe: Observer | None
    ) -> None:
        plan, accelerator = self.plan, self.accelerator
        examples = self._examples("train")
        num_steps = plan.num_steps(len(examples))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = accelerator.prepare(
            torch.optim.AdamW(trained, lr=learning_rate, weight_decay=plan.weight_decay)
        )
        schedule = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
            optimizer, round(plan.warmup_fraction * num_steps), num_steps
        )
        if plan.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.train()
        for step, rows in enumerate(itertools.islice(self._rows(seed), num_steps)):
            loss = self._backward(model, [examples[row] for row in rows])
            if step % STEPS_BETWEEN_CHECKS == 0 or step == num_steps - 1:
                _check_finite(loss, step, learning_rate)
            accelerator.clip_grad_norm_(trained, plan.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if observe is not None:
                observe(model, step + 1)
                model.train()
        # Accelerate keeps every optimizer that it prepared until it is told to let go
        accelerator.free_memory()

    def _backward(self, model: nn.Module, examples: list[Example]) -> Tensor:
        """Adds the gradient of the mean loss over the examples; returns that loss."""
        kind, size = self.task.kind, self._micro_batch_size or len(examples)
        num_terms, losses = kind.num_terms(examples), []
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            with self.accelerator.autocast():
                loss = kind.loss(model, self._batch(part)) * (kind.num_terms(part) / num_terms)
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _halve_micro_batch(self, error: RuntimeError) -> None:
        size = self._micro_batch_size or self.plan.batch_size
        self.accelerator.free_memory()
        if size == 1 or not should_reduce_batch_size(error):
            raise error
        self._micro_batch_size = size // 2
        logger.warning(
            "Out of memory; training again with %d examples at once.", self._micro_batch_size
        )
        clear_device_cache(garbage_collection=True)

    def _examples(self, split: SplitName) -> list[Example]:
        if split not in self._tokenised:
            self._tokenised[split] = self.task.tokenize(
                getattr(self.task, split),
                self.pretrained.tokenizer,
                max_length=self.plan.max_length,
            )
        return self._tokenised[split]

    def _batch(self, examples: list[Example]) -> dict[str, Tensor]:
        batch = self.task.kind.collate(examples, self.pretrained.tokenizer)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _rows(self, seed: int) -> Iterator[list[int]]:
        """Yields the rows of each batch for ever, like lengths together, in random order."""
        generator = torch.Generator().manual_seed(seed)
        lengths = [self.task.kind.length(example) for example in self._examples("train")]
        size = self.plan.batch_size
        while True:
            shuffled = torch.randperm(len(lengths), generator=generator).tolist()
            for start in range(0, len(shuffled), size * BATCHES_SORTED_TOGETHER):
                chunk = shuffled[start : start + size * BATCHES_SORTED_TOGETHER]
                chunk.sort(key=lengths.__getitem__)
                batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
                for i in torch.randperm(len(batches), generator=generator).tolist():
                    yield batches[i]


def _check_finite(loss: Tensor, step: int, learning_rate: float) -> None:
    value = loss.item()
    if not torch.isfinite(loss):
        raise TrainingError(
            f"The training loss was {value} at step {step} with learning rate {learning_rate:g}; "
            "a lower rate or max_grad_norm may keep it finite."
        )
