"""What of a configuration a search space knows: the sizes that its layers share, and its mask.

Imports `errors` and `tuner`; imported by `space`.
"""

from collections.abc import Sequence
from dataclasses import fields

from peft import PeftConfig

from ..errors import ConfigError
from ..tuner.config import PARTS, AutoPEFTConfig, LayerSizes

__all__ = ["layer_sizes", "only_varied", "shared_sizes"]

VARIED = {*PARTS.values(), "lora_modules", "layers_to_transform"}
# what PEFT notes in a config, and which module is the head: no part of a structure
IRRELEVANT = {f.name for f in fields(PeftConfig)} | {"modules_to_save"}


def only_varied(config: AutoPEFTConfig) -> AutoPEFTConfig:
    """Returns the configuration, joined, if what no space varies is at its default.

    Raises:
        ConfigError: It is not, so that the configuration would be lost on the way.
    """
    joined = config.joined()
    for field in fields(AutoPEFTConfig):
        value = getattr(joined, field.name)
        if field.name not in VARIED | IRRELEVANT and value != field.default:
            raise ConfigError(
                f"expected {field.name}={field.default!r}, which a space does not vary, got "
                f"{value!r}; SearchSpace.canonical keeps such fields"
            )
    return joined


def layer_sizes(
    config: AutoPEFTConfig, num_layers: int, lora_modules: str | list[str] | None
) -> list[LayerSizes]:
    """Returns the sizes of each layer.

    Args:
        config: Any configuration.
        num_layers: Layers of the model.
        lora_modules: The modules that may have low-rank updates; None if none may.

    Raises:
        ConfigError: Other modules have any.
    """
    joined = config.joined()
    layers = joined.layer_sizes(num_layers)
    if any(layer.lora for layer in layers):
        if lora_modules is None:
            raise ConfigError(
                "expected no low-rank part, as the space has no lora_ranks, got "
                f"lora_rank={joined.lora_rank}"
            )
        if joined.lora_modules != lora_modules:
            raise ConfigError(
                f"expected lora_modules={lora_modules!r}, those of the space, got "
                f"{joined.lora_modules!r}"
            )
    return layers


def shared_sizes(layers: Sequence[LayerSizes]) -> LayerSizes:
    """Returns the sizes of every layer that has any.

    Raises:
        ConfigError: They differ.
    """
    shared = {layer for layer in layers if any(layer)}
    if len(shared) != 1:
        raise ConfigError(
            f"expected the same sizes ({', '.join(LayerSizes._fields)}) in every active layer, as "
            f"a space shares them, got {sorted(tuple(layer) for layer in shared)}"
        )
    return shared.pop()
