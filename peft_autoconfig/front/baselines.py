"""The hand-made choices that a front has to beat, at the sizes that their papers give.

Sizes follow the baselines of AutoPEFT (arXiv 2301.12132, section 5): a serial bottleneck of a
sixteenth of the hidden size, a parallel one of half of it, ten prefix positions, LoRA of rank 8.
The report of a search takes the few that it can afford; benchmarks take all.

Imports `tasks`, `training` and `tuner`; imported by `table`, the examples and benchmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from peft import LoraConfig

from ..tasks import Evaluation, Task
from ..training import Training
from ..training.evaluator import SplitName
from ..training.pretrained import FULL_FINE_TUNING, LINEAR_PROBE, Method
from ..tuner import AutoPEFTConfig, LayerPrefixConfig, ParallelAdapterConfig, SerialAdapterConfig

__all__ = [
    "Baseline",
    "all_baselines",
    "baseline_methods",
    "baseline_rates",
    "constant_predictor",
    "untrained",
]

PREFIX_LENGTH = 10
MAM_PREFIX_LENGTH = 30  # He et al. 2022, arXiv 2110.04366
LORA_RANKS = (4, 8, 16)
LORA_RANK = 8
# All weights at once want smaller steps than a few new ones; as many rates, so as fair a choice.
FULL_FINE_TUNING_RATE_FACTOR = 0.05


@dataclass(frozen=True)
class Baseline:
    """A hand-made choice.

    Attributes:
        name: Its name in a table.
        method: What is trained.
        is_reported: Whether the report of a search has it.
    """

    name: str
    method: Method
    is_reported: bool = False


def all_baselines(hidden_size: int) -> list[Baseline]:
    """Returns all hand-made choices for a model of some width, about the smallest first.

    LoRA in the attention is PEFT's default for the architecture, query and value mostly. Two
    combinations are near relatives of published ones: MAM (He et al. 2022) joins a prefix and a
    parallel adapter; UniPELT (Mao et al. 2022) joins serial adapter, prefix and LoRA, and has
    gates, which ours lacks.
    """
    serial, parallel = max(1, hidden_size // 16), max(1, hidden_size // 2)
    mam = AutoPEFTConfig(prefix_length=MAM_PREFIX_LENGTH, parallel_bottleneck_size=parallel)
    unipelt = AutoPEFTConfig(
        serial_bottleneck_size=serial,
        prefix_length=PREFIX_LENGTH,
        lora_rank=LORA_RANK,
        lora_modules="attention",
    )
    return [
        Baseline("linear probe", LINEAR_PROBE, is_reported=True),
        Baseline(f"prefix {PREFIX_LENGTH}", LayerPrefixConfig(prefix_length=PREFIX_LENGTH), True),
        *(Baseline(f"LoRA r={rank}", _lora(rank), rank == LORA_RANK) for rank in LORA_RANKS),
        *(Baseline(f"LoRA r={rank}, all linear", _lora(rank, "all-linear")) for rank in LORA_RANKS),
        Baseline(f"serial {serial}", SerialAdapterConfig(bottleneck_size=serial), True),
        Baseline(f"parallel {parallel}", ParallelAdapterConfig(bottleneck_size=parallel), True),
        Baseline(f"MAM-like: prefix {MAM_PREFIX_LENGTH}, parallel {parallel}", mam),
        Baseline(
            f"UniPELT-like: serial {serial}, prefix {PREFIX_LENGTH}, LoRA r={LORA_RANK}", unipelt
        ),
        Baseline("full fine-tuning", FULL_FINE_TUNING, is_reported=True),
    ]


def baseline_methods(hidden_size: int, *, has_new_head: bool = True) -> dict[str, Method]:
    """Returns those that the report of a search has, by their names, about the smallest first.

    Args:
        hidden_size: Width of the model.
        has_new_head: Whether the task adds a head, which a linear probe would train alone.
    """
    return {
        baseline.name: baseline.method
        for baseline in all_baselines(hidden_size)
        if baseline.is_reported and (has_new_head or baseline.method != LINEAR_PROBE)
    }


def baseline_rates(method: Method, learning_rates: Sequence[float]) -> list[float]:
    """Returns the rates that a method may choose from, as many as a search has."""
    factor = FULL_FINE_TUNING_RATE_FACTOR if method == FULL_FINE_TUNING else 1.0
    return [rate * factor for rate in learning_rates]


def constant_predictor(task: Task, split: str) -> Evaluation | None:
    """Returns how well the best constant of the training set does on a split of ``task``.

    For classes it is their frequencies, hence the majority class; for values it is their mean.
    None where a constant says nothing, as of texts to be written.
    """
    part = getattr(task, split)
    outputs = task.kind.constant(task.train, part)
    return None if outputs is None else task.evaluate(outputs, part.labels)


def untrained(training: Training, split: SplitName) -> tuple[str, Evaluation]:
    """Returns what any training has to beat, and its name.

    That is the best constant; where there is none, the model as it is before any training.
    """
    constant = constant_predictor(training.task, split)
    if constant is not None:
        return "constant predictor", constant
    return "untrained model", training.evaluate(training.untrained(), split)


def _lora(rank: int, target_modules: str | None = None) -> LoraConfig:
    # alpha = 2 r, as in the examples of LoRA's authors and of PEFT
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=target_modules)
