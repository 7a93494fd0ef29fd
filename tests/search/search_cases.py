"""A small space, an honest objective and a fast place for run folders, for the search's tests."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from peft_autoconfig.search import Search
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

SIZES = {
    "serial_bottleneck_sizes": (0, 1, 4),
    "parallel_bottleneck_sizes": (0, 2, 8),
    "prefix_lengths": (0, 1, 4),
}
SPACE = SearchSpace(num_layers=2, hidden_size=4, learning_rates=(1e-3, 5e-3), **SIZES)
PLAIN = SearchSpace(num_layers=2, hidden_size=4, **SIZES)
SMALL = AutoPEFTConfig(prefix_length=1, layers_to_transform=[0])


@pytest.fixture(name="folder")
def run_path() -> Iterator[Path]:
    """A path for a run; in memory if it can be, since SQLite waits for the disk at each step."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name) / "run"


def scored(config: AutoPEFTConfig, learning_rate: float = 1e-3) -> float:
    """More parameters and the higher rate help."""
    return 1 - math.exp(-SPACE.num_params(config) * learning_rate)


def open_search(folder: Path, space: SearchSpace = SPACE, seed: int | None = 1, **options):
    """Opens a search that draws at random, where the quality of proposals is beside the point."""
    return Search(space, folder, sampler=optuna.samplers.RandomSampler(seed=seed), **options)


def states(search: Search) -> list[str]:
    return [record.state for record in search.trials]


def complete(search: Search) -> list[TrialRecord]:
    return [record for record in search.trials if record.state == "COMPLETE"]


def points(records: list[TrialRecord]) -> list[tuple[str, float | None]]:
    return [(str(record.config), record.learning_rate) for record in records]
