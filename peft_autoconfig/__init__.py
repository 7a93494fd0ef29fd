"""Finds small, good PEFT configurations: which parts, what sizes, which layers.

    search space -> BO vector -> AutoPEFTConfig -> get_peft_model -> training
        -> (score, parameters) -> Pareto front -> PEFT checkpoints

Importing this package registers our methods with PEFT, after which everything of PEFT works with
them. Names that need more than PEFT (`Search`) are loaded when they are first asked for, so that
whoever only loads an adapter pays for nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .outcome import Outcome
from .space import SearchSpace
from .tuner import (
    AutoPEFTConfig,
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)

if TYPE_CHECKING:
    from .search import Search

__all__ = [
    "AutoPEFTConfig",
    "LayerPrefixConfig",
    "LowRankConfig",
    "Outcome",
    "ParallelAdapterConfig",
    "Search",
    "SearchSpace",
    "SerialAdapterConfig",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Search":
        return import_module(".search", __name__).Search
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
