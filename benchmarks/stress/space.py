"""The space of a BERT-base search and an objective that costs nothing, for the simulations."""

import math
import zlib

from peft_autoconfig.space import SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

__all__ = ["SPACE", "scored"]

SPACE = SearchSpace.paper(num_layers=12, hidden_size=768, learning_rates=(1e-4, 3e-4, 1e-3, 3e-3))


def scored(config: AutoPEFTConfig) -> float:
    """More parameters help, ever less; luck decides among equals, so that fronts stay short."""
    luck = zlib.crc32(repr(config).encode()) / 2**32
    return 1 - math.exp(-SPACE.num_params(config) / 1_000_000) + 0.1 * luck
