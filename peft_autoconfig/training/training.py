"""The training of one configuration: (method, learning rate, seed) -> model -> Outcome.

A `Training` is the objective of a search: call it with a configuration. It loads the base model
and tokenises the data once, when they are first needed; all trainings share the frozen weights.
Accelerate chooses the device and the precision (`accelerate launch --mixed_precision bf16 ...`);
every process trains its own model, or all train one (see `team`).

Imports `errors`, `outcome`, `tasks`, `tuner` and what lies beside it; imported by `front`.
"""

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from ..errors import ConfigError, TrainingError, WorkerError
from ..outcome import Outcome
from ..tasks import Evaluation, Task
from .checkpoint import Checkpoint
from .evaluator import SplitName
from .fit import Observer
from .launch import Parallel, accelerator_of_launch, team_of
from .method import method_of, method_text
from .plan import TrainingPlan
from .pretrained import Method, Pretrained
from .rungs import Report, at_rungs
from .trainer import Trainer

__all__ = ["Training"]

logger = logging.getLogger(__name__)


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
        ConfigError: The launch divides models among processes as DeepSpeed does, or as FSDP does
            while ``parallel`` is "trials".
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
        self.accelerator = accelerator_of_launch()
        self._team = team_of(self.accelerator, parallel)
        # the model that all processes of the team hold
        self._held: Callable[[], nn.Module | None] = lambda: None
        self._trainer = Trainer(model, task, self.plan, self.accelerator, self._team)

    @property
    def pretrained(self) -> Pretrained:
        """The model and its tokenizer, loaded when they are first needed.

        Raises:
            ConfigError: The model cannot be loaded, or cannot be divided as the launch asks for.
            PlacementError: The model has no layout that our parts fit into.
        """
        return self._trainer.pretrained

    @property
    def divides_model(self) -> bool:
        """Whether each process holds a part of the model only, as the launch asks for (FSDP)."""
        return self._team.divides

    def load(self) -> None:
        """Loads the model and tokenises the data now rather than at the first training.

        So that whatever is wrong with them is an error of its own and no failed trial.

        Raises:
            ConfigError: The model cannot be loaded.
            PlacementError: The model has no layout that our parts fit into.
            TaskError: The tokenizer does not fit the task.
        """
        self._team.tell(do="load")
        self._trainer.load()

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

        All processes of a team share the work if they hold the model: it is the one that they
        trained last, or are training.

        Raises:
            ConfigError: They do not, and it is divided among them.
        """
        if self._held() is not model:
            if self._team.divides:
                raise ConfigError(
                    "Expected the model that was trained last, which all processes hold together "
                    "(FSDP), got another one."
                )
            return self._trainer.evaluate(model, split, rows, alone=True)
        self._team.tell(do="evaluate", split=split, rows=None if rows is None else list(rows))
        return self._evaluate_held(model, split, rows)

    def untrained(self) -> nn.Module:
        """Returns the model as it is before any training."""
        self._held = lambda: None
        self._team.tell(do="hold")
        return self._untrained()

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
        """Does what the leader tells, until it tells no more."""
        model: nn.Module | None = None
        while (words := self._team.hear())["do"] != "end":
            model = self._obey(words, model)

    def _attend(self, model: nn.Module, step: int) -> None:
        """Does what the leader tells between two steps."""
        while (words := self._team.hear())["do"] != "go on":
            self._obey(words, model)

    def _obey(self, words: dict[str, Any], model: nn.Module | None) -> nn.Module | None:
        """Does one thing; what fails here fails in the leader, too.

        Args:
            words: What it is.
            model: The model that all hold.

        Returns:
            The model that all hold from then on.
        """
        try:
            if words["do"] == "load":
                self._trainer.load()
            elif words["do"] == "hold":
                model = None  # room for the next one
                return self._untrained()
            elif words["do"] == "train":
                model = None
                method, rate = method_of(words["method"]), words["learning_rate"]
                checkpoint = self._checkpoint(method, rate, words["seed"])
                observe = self._attend if words["observed"] else None
                return self._train(checkpoint, method, rate, words["seed"], observe)
            elif model is not None:
                self._evaluate_held(model, words["split"], words["rows"])
        except WorkerError:
            raise
        except Exception as error:
            logger.debug("Failed with the leader: %s", error)
        return model

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
            told = {"method": method_text(method), "learning_rate": rate, "seed": seed}
            self._team.tell(do="train", observed=observe is not None, **told)
            observe = self._before_all(observe)
        model = self._trainer.train(method, rate, seed, checkpoint, observe)
        self._hold(model)
        return model

    def _before_all(self, observe: Observer | None) -> Observer | None:
        """Returns an observer while whom the others wait, or evaluate what it wants evaluated."""
        if observe is None or self._team.is_alone:
            return observe

        def observe_held(model: nn.Module, step: int) -> None:
            self._hold(model)
            with self._team.aside():
                observe(model, step)
            if self._held() is None:
                raise TrainingError("An evaluation failed half way, and the model with it.")

        return observe_held

    def _untrained(self) -> nn.Module:
        model = self._trainer.untrained()
        self._hold(model)
        return model

    def _hold(self, model: nn.Module) -> None:
        if not self._team.is_alone:
            self._held = weakref.ref(model)

    def _evaluate_held(
        self, model: nn.Module, split: SplitName, rows: Sequence[int] | None
    ) -> Evaluation:
        try:
            return self._trainer.evaluate(model, split, rows)
        except Exception:
            if self._team.divides:  # some layers may be together and others not
                self._held = lambda: None
            raise

    def _at_rungs(self, report: Report) -> Observer:
        return at_rungs(
            report,
            lambda model, rows: self.evaluate(model, "dev", rows=rows),
            self.plan,
            num_train=len(self._trainer.examples("train")),
            num_dev=len(self._trainer.examples("dev")),
            seed=self.seed,
        )
