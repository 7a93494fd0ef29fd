"""The configuration that joins all parts, and what it shares with those of one part (`methods`).

What a person writes, PEFT stores as JSON and the search proposes. A configuration of one part
means the same as an `AutoPEFTConfig` with only that part (`joined`), so one tuner serves them all.

Imports `errors`, `checkpoint`, `fields`; imported by `methods`, the sites, `model` and `space`.
"""

import os
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peft import PeftConfig
from peft.utils import PeftType

from ..errors import ConfigError
from .checkpoint import check_file
from .fields import (
    check_activation,
    check_init_weights,
    check_layers,
    check_lora_modules,
    check_modules,
    check_number,
    check_size,
    per_layer,
)

__all__ = ["LEARNED", "PARALLEL_SCALE", "AutoPEFTConfig", "LayerSizes", "LayerwiseConfig"]

# He et al. (2022), arXiv 2110.04366: the fixed factor of the parallel adapter, kept by AutoPEFT.
PARALLEL_SCALE = 4.0
# A `parallel_scale` that is trained, from `PARALLEL_SCALE` on.
LEARNED = "learned"

# The field with the size of each part, in the order of `LayerSizes`.
PARTS = {
    "serial": "serial_bottleneck_size",
    "parallel": "parallel_bottleneck_size",
    "prefix": "prefix_length",
    "lora": "lora_rank",
}


class LayerSizes(NamedTuple):
    """The sizes of the parts in one layer; 0 means that the part is absent."""

    serial: int = 0
    parallel: int = 0
    prefix: int = 0
    lora: int = 0


@dataclass
class LayerwiseConfig(PeftConfig):
    """What the configuration classes share; abstract.

    Args:
        layers_to_transform: Indices of the layers that get the parts, [0, number of layers);
            None means every layer. A dict gives each part ("serial", "parallel", "prefix",
            "lora") its own indices; a part that it does not name is in every layer. The layers
            of an encoder-decoder are counted through, the encoder's first.
        modules_to_save: Modules besides ours that are trained and saved, such as a task head.
        init_weights: True starts every part but the prefix as the identity; "paper" starts the
            serial adapter at N(0, 0.02) as the AutoPEFT release does; False draws all projections
            at random, which is of use in tests.
        target_modules: None places the parts by the structure of a transformer. For models
            without one: the linear modules that get the bottlenecks and the low-rank update, as
            PEFT reads the field (a regular expression, names or the ends of names, or
            "all-linear"); each counts as one layer.
        exclude_modules: Modules that get nothing, named likewise.
    """

    layers_to_transform: list[int] | dict[str, list[int]] | int | None = field(
        default=None,
        metadata={"help": "Indices of the layers that get the parts; None means every layer."},
    )
    modules_to_save: list[str] | None = field(
        default=None,
        metadata={"help": "Modules besides ours that are trained and saved, such as a task head."},
    )
    init_weights: bool | str = field(
        default=True,
        metadata={
            "help": (
                "True: every part but the prefix starts as the identity; 'paper': the serial "
                "adapter starts at N(0, 0.02); False: all projections are drawn at random."
            )
        },
    )
    target_modules: list[str] | set[str] | str | None = field(
        default=None,
        metadata={
            "help": "Linear modules that get the parts; None: found by the model's structure."
        },
    )
    exclude_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Modules that get nothing, named as target_modules."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.layers_to_transform = check_layers(self.layers_to_transform, PARTS)
        self.target_modules = check_modules(self.target_modules, "target_modules")
        self.exclude_modules = check_modules(self.exclude_modules, "exclude_modules")
        check_init_weights(self.init_weights)

    # whether the weights that belong to this configuration are still to be loaded
    awaits_weights = False

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> Any:
        """Returns a saved configuration, as PEFT's; a damaged file of weights beside it raises."""
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder, **kwargs)
        check_file(os.path.join(pretrained_model_name_or_path, subfolder or ""))
        config.awaits_weights = True
        return config

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Saves the configuration, as PEFT's; a model card beside it gets the import it needs."""
        super().save_pretrained(save_directory, **kwargs)
        # Late, since a configuration need not know of cards before it is saved.
        from ..exchange.model_card import add_usage

        add_usage(save_directory)

    @abstractmethod
    def joined(self) -> "AutoPEFTConfig":
        """Returns the `AutoPEFTConfig` that means the same."""

    def layer_sizes(self, num_layers: int) -> list[LayerSizes]:
        """Returns the sizes of the parts in each of ``num_layers`` layers.

        Raises:
            ConfigError: A layer index is out of range or a per-layer list has another length.
        """
        config = self.joined()
        columns = []
        for part, name in PARTS.items():
            active = config.active_layers(num_layers, part)
            sizes = per_layer(getattr(config, name), name, num_layers)
            columns.append([size if i in active else 0 for i, size in enumerate(sizes)])
        return [LayerSizes(*sizes) for sizes in zip(*columns, strict=True)]

    def active_layers(self, num_layers: int, part: str) -> range | list[int]:
        """Returns the indices at which `layers_to_transform` lets a part be.

        Raises:
            ConfigError: An index is not in [0, num_layers).
        """
        layers = self.layers_to_transform
        if isinstance(layers, dict):
            layers = layers.get(part)
        if layers is None:
            return range(num_layers)
        layers = [layers] if isinstance(layers, int) else layers
        if layers[-1] >= num_layers:
            raise ConfigError(
                f"layers_to_transform must hold indices in [0, {num_layers}) for a model of "
                f"{num_layers} layers, got {layers}; drop those out of range."
            )
        return layers


@dataclass
class AutoPEFTConfig(LayerwiseConfig):
    """Serial and parallel adapter, prefix and low-rank update in one (AutoPEFT, section 3).

    Source: Zhou et al. (2024), arXiv 2301.12132, and for the low-rank part Hu et al. (2022),
    arXiv 2106.09685. A size of 0 leaves a part out.

    Args:
        serial_bottleneck_size: Width of the serial adapter, shared by the layers or one per layer.
        parallel_bottleneck_size: Width of the parallel adapter, likewise.
        prefix_length: Number of prefix positions, likewise.
        lora_rank: Rank of the low-rank updates, likewise.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
        parallel_scale: Factor of the parallel adapter's output, above 0; 4.0 as published.
            "learned" trains one factor per layer, from 4.0 on.
        lora_scale: Factor of the low-rank updates, above 0; what PEFT calls ``lora_alpha / r``.
        lora_modules: The linear modules that get low-rank updates: those of the "attention", of
            the "feed_forward" sub-layer, "all", or a list of (ends of) their names.
        dropout: Probability in [0, 1) of dropping an output of a bottleneck or an input of a
            low-rank update, in training.
        prefix_projection_size: 0 trains the prefixes' keys and values themselves; above 0 they
            come from an embedding through two projections with a tanh between, of this width
            (Li and Liang, 2021, section 4.3). `fold_prefixes` puts keys and values in their place.
    """

    serial_bottleneck_size: int | list[int] = field(
        default=0, metadata={"help": "Width of the serial adapter, shared or one per layer."}
    )
    parallel_bottleneck_size: int | list[int] = field(
        default=0, metadata={"help": "Width of the parallel adapter, shared or one per layer."}
    )
    prefix_length: int | list[int] = field(
        default=0, metadata={"help": "Number of prefix positions, shared or one per layer."}
    )
    lora_rank: int | list[int] = field(
        default=0, metadata={"help": "Rank of the low-rank updates, shared or one per layer."}
    )
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )
    parallel_scale: float | str = field(
        default=PARALLEL_SCALE,
        metadata={"help": "Factor of the parallel adapter's output, or 'learned'."},
    )
    lora_scale: float = field(default=1.0, metadata={"help": "Factor of the low-rank updates."})
    lora_modules: str | list[str] = field(
        default="all",
        metadata={"help": "'attention', 'feed_forward', 'all', or names of linear modules."},
    )
    dropout: float = field(default=0.0, metadata={"help": "Probability of dropping, in [0, 1)."})
    prefix_projection_size: int = field(
        default=0, metadata={"help": "Width of the projection of the prefixes; 0 for none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT"]
        for name in PARTS.values():
            setattr(self, name, check_size(getattr(self, name), name))
        check_activation(self.activation)
        if self.parallel_scale != LEARNED:
            check_number(self.parallel_scale, "parallel_scale, unless 'learned',", above=0)
        check_number(self.lora_scale, "lora_scale", above=0)
        check_number(self.dropout, "dropout", above=0, below=1)
        self.lora_modules = check_lora_modules(self.lora_modules)
        if isinstance(check_size(self.prefix_projection_size, "prefix_projection_size"), list):
            raise ConfigError(
                "prefix_projection_size must be one int for all layers, "
                f"got {self.prefix_projection_size}."
            )
        self._refuse_nothing()

    def joined(self) -> "AutoPEFTConfig":
        return self

    @classmethod
    def from_search(
        cls, run: str, *, max_params: int | None = None, select: str = "score"
    ) -> "AutoPEFTConfig":
        """Returns a configuration from the front of a finished or running search.

        Args:
            run: The run folder of a search.
            max_params: Only members of the front with at most so many parameters; None for all.
            select: "score" takes the member that is believed to score best, "knee" the point where
                more parameters stop paying, "params" the fewest parameters.

        Raises:
            RunError: The folder holds no readable front, or no member of it meets the budget.
        """
        # Late, since only this one way of making a config needs to know that searches exist.
        from ..run.folder import select_member

        return cls(**select_member(run, max_params=max_params, select=select)["config"])

    def _refuse_nothing(self) -> None:
        sizes = {name: getattr(self, name) for name in PARTS.values()}
        lengths = [len(size) for size in sizes.values() if isinstance(size, list)]
        layers: Any = self.layers_to_transform
        masks = list(layers.values()) if isinstance(layers, dict) else [layers or [0]]
        num_layers = max(lengths, default=1 + max(max(mask) for mask in masks))
        if not any(map(any, self.layer_sizes(num_layers))):
            raise ConfigError(
                f"At least one of {', '.join(sizes)} must be above 0 in an active layer, got "
                f"{sizes} with layers_to_transform={layers}: everything is off."
            )
        if self.prefix_projection_size and not self.prefix_length:
            raise ConfigError(
                "prefix_projection_size needs a prefix_length above 0, got "
                f"{self.prefix_projection_size} with prefix_length={self.prefix_length}."
            )
