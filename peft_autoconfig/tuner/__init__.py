"""The extension of PEFT: importing this package registers our methods with PEFT."""

from .registry import add_peft_types, register

add_peft_types()

# the members of PeftType must exist before the classes that name them
from .config import (  # noqa: E402
    AutoPEFTConfig,
    LayerPrefixConfig,
    LayerSizes,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)
from .model import (  # noqa: E402
    AutoPEFTModel,
    LayerPrefixModel,
    ParallelAdapterModel,
    SerialAdapterModel,
)

register(
    {
        "autopeft": AutoPEFTConfig,
        "autopeft_serial": SerialAdapterConfig,
        "autopeft_parallel": ParallelAdapterConfig,
        "autopeft_prefix": LayerPrefixConfig,
    },
    {
        "autopeft": AutoPEFTModel,
        "autopeft_serial": SerialAdapterModel,
        "autopeft_parallel": ParallelAdapterModel,
        "autopeft_prefix": LayerPrefixModel,
    },
)

__all__ = [
    "AutoPEFTConfig",
    "LayerPrefixConfig",
    "LayerSizes",
    "ParallelAdapterConfig",
    "SerialAdapterConfig",
]
