"""The hand-made choices that a front has to beat, at the sizes that their papers give.

Sizes follow the baselines of AutoPEFT (arXiv 2301.12132, section 5): a serial bottleneck of a
sixteenth of the hidden size, a parallel one of half of it, ten prefix positions, LoRA of rank 8.

Imports `tasks`, `training` and `tuner`; imported by the examples.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from peft import LoraConfig

from ..tasks import Evaluation, Task
from ..training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE, Method
from ..tuner import LayerPrefixConfig, ParallelAdapterConfig, SerialAdapterConfig

__all__ = ["baseline_methods", "baseline_rates", "constant_predictor"]

LORA_RANK = 8
PREFIX_LENGTH = 10
# All weights at once want smaller steps than a few new ones; as many rates, so as fair a choice.
FULL_FINE_TUNING_RATE_FACTOR = 0.05


def baseline_methods(hidden_size: int) -> dict[str, Method]:
    """Returns the methods by their names, the smallest first."""
    serial, parallel = max(1, hidden_size // 16), max(1, hidden_size // 2)
    return {
        "linear probe": LINEAR_PROBE,
        f"prefix {PREFIX_LENGTH}": LayerPrefixConfig(prefix_length=PREFIX_LENGTH),
        # alpha = 2 r, as in the examples of LoRA's authors and of PEFT
        f"LoRA r={LORA_RANK}": LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK),
        f"serial {serial}": SerialAdapterConfig(bottleneck_size=serial),
        f"parallel {parallel}": ParallelAdapterConfig(bottleneck_size=parallel),
        "full fine-tuning": FULL_FINE_TUNING,
    }


def baseline_rates(method: Method, learning_rates: Sequence[float]) -> list[float]:
    """Returns the rates that a method may choose from, as many as a search has."""
    factor = FULL_FINE_TUNING_RATE_FACTOR if method == FULL_FINE_TUNING else 1.0
    return [rate * factor for rate in learning_rates]


def constant_predictor(task: Task, split: str) -> Evaluation:
    """Returns how well the best constant of the training set does on a split of ``task``.

    For classes it is their frequencies, hence the majority class; for values it is their mean.
    """
    labels = getattr(task, split).labels
    if task.kind == "regression":
        constant = np.array([np.mean(task.train.labels)])
    else:
        counts = Counter(task.train.labels)
        frequencies = np.array([counts[label] for label in range(task.num_labels)], dtype=float)
        # a class that training lacks must not have an infinite loss
        constant = np.log((frequencies + 1) / (frequencies + 1).sum())
    return task.evaluate(np.tile(constant, (len(labels), 1)), labels)
