"""The extension of PEFT: importing this package registers our methods with PEFT."""

from .registry import add_peft_types, register

add_peft_types()

from .config import (  # noqa: E402  (the members of PeftType must exist first)
    AutoPEFTConfig,
    LayerPrefixConfig,
    LayerSizes,
    ParallelAdapterConfig,
    SerialAdapterConfig,
)

__all__ = [
    "AutoPEFTConfig",
    "LayerPrefixConfig",
    "LayerSizes",
    "ParallelAdapterConfig",
    "SerialAdapterConfig",
]
