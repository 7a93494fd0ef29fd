"""How well a model does on some rows of a split, computed in shares by all who hold it.

Imports `tasks`, `lower_layers`, `shards` and `team`; imported by `trainer` and `training`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn

from ..tasks import Evaluation, Task
from ..tasks.kind import Batch, Example
from .lower_layers import LowerLayers
from .shards import take_apart
from .team import Team

__all__ = ["Evaluator", "SplitName"]

BATCH_SIZE = 128

SplitName = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models on one task; a callable.

    Attributes:
        accelerator: The precision.
        task: The task.
        batch_of: Makes a batch of examples, on the device.
        longest_batch: Examples at once at most, where a token has scores of all others.
        lower_layers: What lower layers gave for earlier models; None where none is kept.
    """

    accelerator: Accelerator
    task: Task
    batch_of: Callable[[Sequence[Example]], Batch]
    longest_batch: int
    lower_layers: LowerLayers | None

    def __call__(
        self,
        model: nn.Module,
        split: SplitName,
        examples: Sequence[Example],
        rows: Sequence[int] | None,
        team: Team,
    ) -> Evaluation:
        """Returns the metric and loss of ``model``, which is in evaluation mode from then on.

        Args:
            model: The model.
            split: The split.
            examples: Its examples, of which each process has all.
            rows: Numbers of those that count; None for all.
            team: The processes that hold the model.
        """
        kind = self.task.kind
        chosen = range(len(examples)) if rows is None else rows
        outputs = self._outputs(model, split, examples, chosen, team)
        labels = kind.labels(getattr(self.task, split), examples)
        return self.task.evaluate([outputs[row] for row in chosen], [labels[row] for row in chosen])

    def _outputs(
        self,
        model: nn.Module,
        split: SplitName,
        examples: Sequence[Example],
        rows: Sequence[int],
        team: Team,
    ) -> dict[int, Any]:
        model.eval()
        kind = self.task.kind
        size = min(BATCH_SIZE, self.longest_batch) if kind.writes_text else BATCH_SIZE
        order = sorted(rows, key=lambda row: kind.length(examples[row]))
        shortcut = None if self.lower_layers is None else self.lower_layers.under(model)
        outputs: dict[int, Any] = {}
        with torch.inference_mode(), self.accelerator.autocast():
            for part, counts in team.pieces(order, size):
                batch = self.batch_of([examples[row] for row in part])
                predict = partial(kind.predict, model, batch)
                results = shortcut((split, *part), predict) if shortcut else predict()
                if counts:
                    outputs |= zip(part, results, strict=True)
        if team.divides:
            take_apart(model)
        return team.join(outputs)
