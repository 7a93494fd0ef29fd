"""The extension of PEFT: importing this package registers our methods with PEFT."""

from .registry import add_peft_types, register

add_peft_types()

# the members of PeftType must exist before the classes that name them
from .config import AutoPEFTConfig, LayerSizes  # noqa: E402
from .methods import (  # noqa: E402
    LayerPrefixConfig,
    LowRankConfig,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from .model import (  # noqa: E402
    AutoPEFTModel,
    LayerPrefixModel,
    LowRankModel,
    ParallelAdapterModel,
    SerialAdapterModel,
)

register(
    {
        "autopeft": AutoPEFTConfig,
        "autopeft_serial": SerialAdapterConfig,
        "autopeft_parallel": ParallelAdapterConfig,
        "autopeft_prefix": LayerPrefixConfig,
        "autopeft_lora": LowRankConfig,
    },
    {
        "autopeft": AutoPEFTModel,
        "autopeft_serial": SerialAdapterModel,
        "autopeft_parallel": ParallelAdapterModel,
        "autopeft_prefix": LayerPrefixModel,
        "autopeft_lora": LowRankModel,
    },
)

__all__ = [
    "AutoPEFTConfig",
    "LayerPrefixConfig",
    "LayerSizes",
    "LowRankConfig",
    "ParallelAdapterConfig",
    "SerialAdapterConfig",
]
