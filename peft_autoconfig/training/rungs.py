"""The rungs of a training: where it tells how it stands, so that a search may stop it.

Imports `tasks` and what lies beside it; imported by `training`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..tasks import Evaluation
from .fit import Observer
from .plan import TrainingPlan

__all__ = ["Report", "at_rungs"]

# Of the examples of a training, the share that a rung is evaluated on, so that it takes about 3 %
# of the training's time.
SHARE = 1 / 16

# Called with the share of the training that is done, the score and the loss; may end the training
# by an exception.
Report = Callable[[float, float, float | None], None]


def at_rungs(
    report: Report,
    evaluate: Callable[[nn.Module, Sequence[int]], Evaluation],
    plan: TrainingPlan,
    *,
    num_train: int,
    num_dev: int,
    seed: int,
) -> Observer:
    """Returns an observer of a training that evaluates at each rung and reports it.

    Args:
        report: Called at each rung.
        evaluate: Evaluates a model on some rows of the dev split.
        plan: The plan of the training.
        num_train: Examples of the training set.
        num_dev: Examples of the dev split.
        seed: Seed of the choice of rows.
    """
    num_steps = plan.num_steps(num_train)
    fractions = {round(fraction * num_steps): fraction for fraction in plan.rungs}
    size = min(num_dev, math.ceil(SHARE * num_steps * plan.batch_size))
    # the same examples in all trainings, which are compared by them
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(num_dev, generator=generator)[:size].tolist()

    def observe(model: nn.Module, step: int) -> None:
        if step in fractions and step < num_steps:
            evaluation = evaluate(model, rows)
            report(fractions[step], evaluation.score, evaluation.loss)

    return observe
