"""How many parameters each part costs in one layer, exactly and without building a model.

Imports `errors` and `tuner`; imported by `space`.
"""

from dataclasses import dataclass

from ..errors import ConfigError
from ..tuner.config import LEARNED, PARTS, AutoPEFTConfig, LayerSizes

__all__ = ["LayerCosts"]


@dataclass(frozen=True)
class LayerCosts:
    """The sizes of a layer that parts must fit, and so what they cost.

    Attributes:
        hidden_size: Width of the residual stream, H.
        key_value_size: Width of the keys.
        low_rank_size: Inputs and outputs, summed over the modules with low-rank updates; 0 if
            there are none.
    """

    hidden_size: int
    key_value_size: int
    low_rank_size: int = 0

    def of_part(self, name: str, size: int) -> int:
        """Returns the parameters of a part of one layer, biases included; 0 for a size of 0.

        Args:
            name: The field of `AutoPEFTConfig` that holds the size.
            size: A size of at least 0.
        """
        if name == PARTS["lora"]:
            return size * self.low_rank_size
        if name == PARTS["prefix"]:
            return 2 * size * self.key_value_size
        return 2 * self.hidden_size * size + self._bias(size)

    def of_layer(self, config: AutoPEFTConfig, sizes: LayerSizes) -> int:
        """Returns the parameters that a configuration has in a layer where its sizes are these.

        Raises:
            ConfigError: Modules are named in the configuration, so that sizes do not tell.
        """
        for name in ("target_modules", "exclude_modules"):
            if getattr(config, name) is not None:
                raise ConfigError(
                    f"expected parts that are placed by structure, got {name}="
                    f"{getattr(config, name)!r}; count the parameters of the model instead"
                )
        parts = sum(
            self.of_part(name, size) for name, size in zip(PARTS.values(), sizes, strict=True)
        )
        learned = int(config.parallel_scale == LEARNED and sizes.parallel > 0)
        return parts + learned + self._projection(config.prefix_projection_size, sizes.prefix)

    def biases(self, config: AutoPEFTConfig, sizes: LayerSizes) -> int:
        """Returns how many of these parameters are biases."""
        width = config.prefix_projection_size if sizes.prefix else 0
        projection = width + 2 * self.key_value_size if width else 0
        return self._bias(sizes.serial) + self._bias(sizes.parallel) + projection

    def _bias(self, size: int) -> int:
        return size + self.hidden_size if size else 0

    def _projection(self, width: int, length: int) -> int:
        """Returns what an embedding with two projections adds to flat keys and values."""
        if not width or not length:
            return 0
        flat = self.of_part(PARTS["prefix"], length)
        down = (self.hidden_size + 1) * width
        up = (width + 1) * 2 * self.key_value_size
        return length * self.hidden_size + down + up - flat
