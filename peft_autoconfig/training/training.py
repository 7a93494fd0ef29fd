"""The training of one configuration: (method, learning rate, seed) -> model -> Outcome.

A `Training` is the objective of a search: call it with a configuration. It loads the base model
and tokenises the data once, when they are first needed; all trainings share the frozen weights.
Accelerate chooses the device and the precision (`accelerate launch --mixed_precision bf16 ...`);
every process trains its own model, or all train one (see `team`).

Imports `errors`, `outcome`, `tasks`, `tuner` and what lies beside it; imported by `front`.
"""

import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn
from transformers import PretrainedConfig

from ..errors import TrainingError, WorkerError
from ..outcome import Outcome
from ..tasks import Evaluation, Task
from ..tasks.kind import Example
from ..tuner.placement import find_layers
from .checkpoint import Checkpoint
from .fit import Fit, Observer
from .method import method_of, method_text
from .plan import TrainingPlan
from .pretrained import Method, Pretrained
from .team import Parallel, Team

__all__ = ["Training"]

logger = logging.getLogger(__name__)

EVALUATION_BATCH_SIZE = 128
# Of the examples of a training, the share that a rung is evaluated on, so that it takes about 3 %
# of the training's time.
RUNG_SHARE = 1 / 16
# between the seeds of dropout in the processes of a team; no two searches come that near
SEEDS_APART = 2**24

# Called with the share of the training that is done, the score and the loss; may end the training
# by an exception.
Report = Callable[[float, float, float | None], None]
SplitName = Literal["train", "dev", "test"]


class Training:
    """Trains and evaluates methods on one task, all by the same plan.

    Args:
        model: Local folder or Hub id of the pretrained model.
        task: The task; trials see its `train` and `dev` splits.
        plan: The plan of every training.
        seed: Seed of the trainings that a search asks for; the same for all of them, so that
            they differ in their configurations alone.
        parallel: What the processes of an `accelerate launch` do: with "trials" each trains its
            own, with "data" all train one, each on its share of every batch; see `together`.
        checkpoint_folder: Where a training that takes longer than a minute keeps its state each
            minute, until it ends; whoever trains the same again goes on from there. None keeps
            nothing.

    Raises:
        ConfigError: The launch divides models among processes, as FSDP and DeepSpeed do.
    """

    def __init__(
        self,
        model: str,
        task: Task,
        plan: TrainingPlan | None = None,
        *,
        seed: int = 0,
        parallel: Parallel = "trials",
        checkpoint_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.plan = plan or TrainingPlan()
        self.seed = seed
        self.checkpoint_folder = None if checkpoint_folder is None else Path(checkpoint_folder)
        self.accelerator = Accelerator()
        self._team = Team(self.accelerator, parallel)
        self._alone = Team(self.accelerator, "trials")
        # the model that all processes of the team hold
        self._held: Callable[[], nn.Module | None] = lambda: None
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
        self._team.tell(do="load")
        self._load()

    @contextmanager
    def together(self) -> Iterator[bool]:
        """Joins the processes of a launch; yields whether this one leads.

        Whoever leads searches and trains. Any other trains along and goes on when the leader has
        left the context, with nothing more to do. With `parallel` "trials" each leads itself.

            with training.together() as leads:
                if leads:
                    search.run(training, 40)

        Raises:
            WorkerError: The leader is gone.
        """
        with self._team.interruptible():
            if self._team.rank:
                self._follow()
                yield False
                return
            try:
                yield True
            finally:
                self._team.dismiss()

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
        rate = learning_rate or self.plan.learning_rate
        with self._checkpoint(config, rate, self.seed) as checkpoint:
            model = self._train(checkpoint, config, rate, self.seed, observe)
            evaluation = self.evaluate(model, "dev")
        if evaluation.loss is None:
            raise TrainingError(f"The trained model is of no use: {evaluation.reason}.")
        details: dict[str, Any] = {"measures": evaluation.measures}
        if checkpoint.resumed_step:  # the seconds are those of the rest then
            details["resumed_step"] = checkpoint.resumed_step
        return Outcome(
            score=evaluation.score,
            loss=evaluation.loss,
            seconds=time.perf_counter() - started,
            details=details,
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
                steps done; may evaluate the model, and ends the training by an exception. A
                training that goes on from a checkpoint does not repeat the calls before it. Of a
                team, only the leader calls it.

        Raises:
            TrainingError: The loss became infinite or NaN.
        """
        rate = learning_rate or self.plan.learning_rate
        with self._checkpoint(method, rate, seed) as checkpoint:
            return self._train(checkpoint, method, rate, seed, observe)

    def evaluate(
        self, model: nn.Module, split: SplitName, *, rows: Sequence[int] | None = None
    ) -> Evaluation:
        """Returns the metric and loss of ``model`` on a split, or on some rows of it.

        All processes of a team share the work if it is the model that they trained last.
        """
        if self._held() is not model:
            return self._evaluate(model, split, rows, self._alone)
        self._team.tell(do="evaluate", split=split, rows=None if rows is None else list(rows))
        with self._team.attempt():
            return self._evaluate(model, split, rows, self._team)

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
            "plan": self.plan.about(),
            "seed": self.seed,
            "mixed_precision": self.accelerator.mixed_precision,
        }

    def _follow(self) -> None:
        """Does what the leader tells, until it tells no more; what fails here fails there too."""
        model: nn.Module | None = None  # held until the next one is trained
        while (words := self._team.hear())["do"] != "end":
            try:
                if words["do"] == "load":
                    self._load()
                elif words["do"] == "train":
                    model = None
                    method, rate = method_of(words["method"]), words["learning_rate"]
                    checkpoint = self._checkpoint(method, rate, words["seed"])
                    model = self._train(checkpoint, method, rate, words["seed"], None)
                elif model is not None:
                    with self._team.attempt():
                        self._evaluate(model, words["split"], words["rows"], self._team)
            except WorkerError:
                raise
            except Exception as error:
                logger.debug("Failed with the leader: %s", error)

    def _load(self) -> None:
        with self._team.attempt():
            for split in ("train", "dev", "test"):
                self._examples(split)

    def _checkpoint(self, method: Method, learning_rate: float, seed: int) -> Checkpoint:
        what = {"method": method_text(method), "learning_rate": learning_rate, "seed": seed}
        return Checkpoint(self.checkpoint_folder, self._facts | what)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self.about()

    def _train(
        self,
        checkpoint: Checkpoint,
        method: Method,
        rate: float,
        seed: int,
        observe: Observer | None,
    ) -> nn.Module:
        self._held = lambda: None
        if self._team.rank == 0:
            self._team.tell(do="train", method=method_text(method), learning_rate=rate, seed=seed)
        while True:
            try:
                model = self._attempt(checkpoint, method, rate, seed, observe)
            except RuntimeError as error:
                self._halve_micro_batch(error)
                checkpoint.discard()
            else:
                if not self._team.is_alone:
                    self._held = weakref.ref(model)
                return model
            # only now, as the error held all that the attempt had
            clear_device_cache(garbage_collection=True)

    def _attempt(
        self,
        checkpoint: Checkpoint,
        method: Method,
        rate: float,
        seed: int,
        observe: Observer | None,
    ) -> nn.Module:
        with self._team.attempt():
            set_seed(seed)
            model = self.pretrained.fresh(method, seed=seed).to(self.accelerator.device)
            if self._team.rank:  # the same weights, but dropout of its own
                set_seed(seed + SEEDS_APART * self._team.rank)
            try:
                self._fit()(model, self._examples("train"), rate, seed, checkpoint, observe)
            finally:
                # Accelerate keeps every optimizer that it prepared until it is told to let go
                self.accelerator.free_memory()
        return model

    def _evaluate(
        self, model: nn.Module, split: SplitName, rows: Sequence[int] | None, team: Team
    ) -> Evaluation:
        model.eval()
        kind, examples = self.task.kind, self._examples(split)
        chosen = range(len(examples)) if rows is None else rows
        order = sorted(chosen, key=lambda row: kind.length(examples[row]))
        own, size = team.share(order), self._evaluation_batch_size
        outputs: dict[int, Any] = {}
        with torch.inference_mode(), self.accelerator.autocast():
            for start in range(0, len(own), size):
                part = own[start : start + size]
                batch = self._batch([examples[row] for row in part])
                outputs |= zip(part, kind.predict(model, batch), strict=True)
        outputs = team.join(outputs)
        labels = kind.labels(getattr(self.task, split), examples)
        return self.task.evaluate([outputs[row] for row in chosen], [labels[row] for row in chosen])

    @property
    def _evaluation_batch_size(self) -> int:
        """Examples at once; no more than in training where a token has scores of all others."""
        if not self.task.kind.writes_text:
            return EVALUATION_BATCH_SIZE
        return min(EVALUATION_BATCH_SIZE, self._micro_batch_size or self.plan.batch_size)

    def _fit(self) -> Fit:
        return Fit(
            accelerator=self.accelerator,
            team=self._team,
            plan=self.plan,
            kind=self.task.kind,
            batch_of=self._batch,
            micro_batch_size=self._micro_batch_size,
        )

    def _halve_micro_batch(self, error: RuntimeError) -> None:
        size = self._micro_batch_size or -(-self.plan.batch_size // self._team.size)
        if size == 1 or not should_reduce_batch_size(error):
            raise error
        self._micro_batch_size = size // 2
        logger.warning(
            "Out of memory; training again with %d examples at once.", self._micro_batch_size
        )

    def _examples(self, split: SplitName) -> list[Example]:
        if split not in self._tokenised:
            self._tokenised[split] = self.task.tokenize(
                getattr(self.task, split),
                self.pretrained.tokenizer,
                max_length=self.plan.max_length,
            )
        return self._tokenised[split]

    def _batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = self.task.kind.collate(examples, self.pretrained.tokenizer)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
