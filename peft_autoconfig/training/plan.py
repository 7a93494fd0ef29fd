"""The plan of a training: what a search trains every one of its configurations by.

Imports `errors`; imported by `training`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError

__all__ = ["TrainingPlan"]

# what costs time or memory and leaves results of whole trainings as they are
WITHOUT_EFFECT = ("micro_batch_size", "gradient_checkpointing", "rungs")


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

    def about(self) -> dict[str, Any]:
        """Returns the JSON-compatible facts of the plan that results depend on."""
        return {n: v for n, v in asdict(self).items() if n not in WITHOUT_EFFECT}
