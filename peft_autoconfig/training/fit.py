"""The fitting of one model to the training set: AdamW, step by step, from wherever it broke off.

Imports `errors`, `tasks` and what lies beside it; imported by `training`.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from ..errors import TrainingError
from ..tasks.kind import Batch, Example, Kind
from .batches import batches_of
from .checkpoint import Checkpoint
from .plan import TrainingPlan
from .state import TrainingState, UnfitState
from .team import Team

__all__ = ["Fit", "Observer"]

STEPS_BETWEEN_CHECKS = 20

Observer = Callable[[nn.Module, int], None]


@dataclass(frozen=True)
class Fit:
    """Fits models by one plan; a callable.

    Attributes:
        accelerator: The device, the precision and the scaling of losses.
        team: The processes that share each batch.
        plan: The plan.
        kind: What a task asks of a model.
        batch_of: Makes a batch of examples, on the device.
        micro_batch_size: Examples of a process that go through the model at once; None for all.
    """

    accelerator: Accelerator
    team: Team
    plan: TrainingPlan
    kind: Kind
    batch_of: Callable[[Sequence[Example]], Batch]
    micro_batch_size: int | None

    def __call__(
        self,
        model: nn.Module,
        examples: Sequence[Example],
        learning_rate: float,
        seed: int,
        checkpoint: Checkpoint,
        observe: Observer | None,
    ) -> None:
        """Trains the parameters of ``model`` that require gradients.

        Args:
            model: On the device.
            examples: The training set.
            learning_rate: Peak rate.
            seed: Seed of the order of examples.
            checkpoint: Where the state is kept, and may lie from an earlier attempt.
            observe: Called after each step with the model and the number of steps done.

        Raises:
            TrainingError: The loss became infinite or NaN.
        """
        plan, accelerator = self.plan, self.accelerator
        num_steps = plan.num_steps(len(examples))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # `prepare` would want the model too, if a program told Accelerate of FSDP before
        optimizer = accelerator.prepare_optimizer(
            torch.optim.AdamW(trained, lr=learning_rate, weight_decay=plan.weight_decay)
        )
        state = TrainingState(checkpoint.identity, model, optimizer, accelerator, self.team)
        done = self._resume(checkpoint, state)
        for group in optimizer.param_groups:
            group["initial_lr"] = learning_rate  # which a schedule that does not begin at 0 wants
        schedule = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
            optimizer, round(plan.warmup_fraction * num_steps), num_steps, last_epoch=done - 1
        )
        if plan.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.train()
        lengths = [self.kind.length(example) for example in examples]
        batches = batches_of(lengths, plan.batch_size, seed=seed)
        for step, rows in enumerate(itertools.islice(batches, done, num_steps), done):
            loss = self.backward(model, [examples[row] for row in rows])
            loss, is_due = self.team.add_up(trained, loss, wish=checkpoint.is_due())
            if step % STEPS_BETWEEN_CHECKS == 0 or step == num_steps - 1:
                _check_finite(loss, step, learning_rate)
            accelerator.clip_grad_norm_(trained, plan.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if observe is not None:
                observe(model, step + 1)
                model.train()
            if is_due:
                checkpoint.write(state.pack(step + 1))

    def _resume(self, checkpoint: Checkpoint, state: TrainingState) -> int:
        """Returns how many steps are done already, with the state after them taken on."""
        data = checkpoint.read(state.max_bytes)
        self.team.agree()
        data = self.team.broadcast(data)
        checkpoint.resumed_step = 0
        if data is not None:
            try:
                checkpoint.resumed_step = state.unpack(data)
            except UnfitState as error:
                checkpoint.ignore(str(error))
        return checkpoint.resumed_step

    def backward(self, model: nn.Module, examples: Sequence[Example]) -> Tensor:
        """Adds the gradient of the mean loss over the examples, as far as this process shares it.

        Returns:
            Its share of that loss.
        """
        num_terms, size = self.kind.num_terms(examples), self.micro_batch_size or len(examples)
        total = torch.zeros((), device=self.accelerator.device)
        for part, counts in self.team.pieces(examples, size):
            with self.accelerator.autocast():
                loss = self.kind.loss(model, self.batch_of(part))
                loss = loss * (self.kind.num_terms(part) / num_terms if counts else 0.0)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total


def _check_finite(loss: Tensor, step: int, learning_rate: float) -> None:
    value = loss.item()
    if not torch.isfinite(loss):
        raise TrainingError(
            f"The training loss was {value} at step {step} with learning rate {learning_rate:g}; "
            "a lower rate or max_grad_norm may keep it finite."
        )
