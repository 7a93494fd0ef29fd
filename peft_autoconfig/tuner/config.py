"""The configuration classes: what a person writes, PEFT stores as JSON and the search proposes.

`AutoPEFTConfig` joins all parts; the single-method classes say less and mean the same as an
`AutoPEFTConfig` with only that part (`joined`), so that one tuner serves them all.

Imports `errors`; imported by `registry`, `model` and `space`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peft import PeftConfig
from peft.utils import PeftType
from transformers.activations import ACT2FN

from ..errors import ConfigError

__all__ = [
    "AutoPEFTConfig",
    "LayerPrefixConfig",
    "LayerSizes",
    "ParallelAdapterConfig",
    "SerialAdapterConfig",
]

# He et al. (2022), arXiv 2110.04366: the fixed factor of the parallel adapter, kept by AutoPEFT.
PARALLEL_SCALE = 4.0


class LayerSizes(NamedTuple):
    """The sizes of the parts in one layer; 0 means that the part is absent."""

    serial: int
    parallel: int
    prefix: int


@dataclass
class LayerwiseConfig(PeftConfig):
    """What the configuration classes share; abstract.

    Args:
        layers_to_transform: Indices of the layers that get the parts, [0, number of layers);
            None means every layer.
        modules_to_save: Modules besides ours that are trained and saved, such as a task head.
        init_weights: True starts every part but the prefix as the identity; "paper" starts the
            serial adapter at N(0, 0.02) as the AutoPEFT release does; False draws all projections
            at random, which is of use in tests.
    """

    layers_to_transform: list[int] | int | None = field(
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

    # PEFT's injection loop reads this from every config; ours are placed by structure instead.
    target_modules = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.layers_to_transform = _layers(self.layers_to_transform)
        if self.init_weights != "paper" and not isinstance(self.init_weights, bool):
            raise ConfigError(
                f"init_weights must be True, False or 'paper', got {self.init_weights!r}."
            )

    @abstractmethod
    def joined(self) -> "AutoPEFTConfig":
        """Returns the `AutoPEFTConfig` that means the same."""

    def layer_sizes(self, num_layers: int) -> list[LayerSizes]:
        """Returns the sizes of the parts in each of ``num_layers`` layers.

        Raises:
            ConfigError: A layer index is out of range or a per-layer list has another length.
        """
        config = self.joined()
        parts = [
            _per_layer(getattr(config, name), name, num_layers)
            for name in ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length")
        ]
        active = config.active_layers(num_layers)
        off = LayerSizes(0, 0, 0)
        return [
            LayerSizes(*sizes) if layer in active else off
            for layer, sizes in enumerate(zip(*parts, strict=True))
        ]

    def active_layers(self, num_layers: int) -> list[int]:
        """Returns the indices named by `layers_to_transform`, all of them when it is None.

        Raises:
            ConfigError: An index is not in [0, num_layers).
        """
        if self.layers_to_transform is None:
            return list(range(num_layers))
        layers = _layers(self.layers_to_transform) or []
        if layers[-1] >= num_layers:
            raise ConfigError(
                f"layers_to_transform must hold indices in [0, {num_layers}) for a model of "
                f"{num_layers} layers, got {layers}; drop those out of range."
            )
        return layers


@dataclass
class SerialAdapterConfig(LayerwiseConfig):
    """A bottleneck after the feed-forward sub-layer, as Pfeiffer et al. (2021), arXiv 2005.00247.

    Args:
        bottleneck_size: Width of the bottleneck, at least 1; one int for all layers or one per
            layer with 0 for none. The default is the published one for a hidden size of 768.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
    """

    bottleneck_size: int | list[int] = field(
        default=48, metadata={"help": "Width of the bottleneck, shared or one per layer."}
    )
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_SERIAL"]
        self.joined()

    def joined(self) -> "AutoPEFTConfig":
        return _join(self, serial_bottleneck_size=self.bottleneck_size, activation=self.activation)


@dataclass
class ParallelAdapterConfig(LayerwiseConfig):
    """A bottleneck beside the feed-forward sub-layer, as He et al. (2022), arXiv 2110.04366.

    Args:
        bottleneck_size: Width of the bottleneck, at least 1; one int for all layers or one per
            layer with 0 for none. The default is the published one for a hidden size of 768.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
        scale: Factor of the adapter's output, above 0; 4.0 as published.
    """

    bottleneck_size: int | list[int] = field(
        default=384, metadata={"help": "Width of the bottleneck, shared or one per layer."}
    )
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )
    scale: float = field(
        default=PARALLEL_SCALE, metadata={"help": "Factor of the adapter's output."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_PARALLEL"]
        self.joined()

    def joined(self) -> "AutoPEFTConfig":
        return _join(
            self,
            parallel_bottleneck_size=self.bottleneck_size,
            activation=self.activation,
            parallel_scale=self.scale,
        )


@dataclass
class LayerPrefixConfig(LayerwiseConfig):
    """Trained keys and values before those of each layer's attention, as Li and Liang (2021).

    Unlike PEFT's own prefix tuning (arXiv 2101.00190), the positions of real tokens are not
    shifted, the layers can be chosen one by one, and lengths may differ between them.

    Args:
        prefix_length: Number of prefix positions, at least 1; one int for all layers or one per
            layer with 0 for none.
    """

    prefix_length: int | list[int] = field(
        default=10, metadata={"help": "Number of prefix positions, shared or one per layer."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_PREFIX"]
        self.joined()

    def joined(self) -> "AutoPEFTConfig":
        return _join(self, prefix_length=self.prefix_length)


@dataclass
class AutoPEFTConfig(LayerwiseConfig):
    """Serial adapter, parallel adapter and prefix under one layer mask (AutoPEFT, section 3).

    Source: Zhou et al. (2024), arXiv 2301.12132. A size of 0 leaves a part out.

    Args:
        serial_bottleneck_size: Width of the serial adapter, shared by the layers or one per layer.
        parallel_bottleneck_size: Width of the parallel adapter, likewise.
        prefix_length: Number of prefix positions, likewise.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
        parallel_scale: Factor of the parallel adapter's output, above 0; 4.0 as published.
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
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )
    parallel_scale: float = field(
        default=PARALLEL_SCALE, metadata={"help": "Factor of the parallel adapter's output."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT"]
        for name in ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length"):
            setattr(self, name, _size(getattr(self, name), name))
        if self.activation not in ACT2FN:
            raise ConfigError(
                f"activation must be one of {sorted(ACT2FN)}, got {self.activation!r}."
            )
        if not isinstance(self.parallel_scale, int | float) or not self.parallel_scale > 0:
            raise ConfigError(
                f"The scale of a parallel adapter must be a number above 0, "
                f"got {self.parallel_scale!r}."
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
            select: "score" takes the best score, "knee" the point where more parameters stop
                paying, "params" the fewest parameters.

        Raises:
            RunError: The folder holds no readable front, or no member of it meets the budget.
        """
        # Late, since only this one way of making a config needs to know that searches exist.
        from ..run.folder import select_member

        return cls(**select_member(run, max_params=max_params, select=select)["config"])

    def _refuse_nothing(self) -> None:
        sizes = (self.serial_bottleneck_size, self.parallel_bottleneck_size, self.prefix_length)
        lengths = [len(size) for size in sizes if isinstance(size, list)]
        last_layer = max(_layers(self.layers_to_transform) or [0])
        if not any(map(any, self.layer_sizes(max(lengths, default=last_layer + 1)))):
            raise ConfigError(
                "At least one of serial_bottleneck_size, parallel_bottleneck_size and "
                f"prefix_length must be above 0 in an active layer, got {sizes} with "
                f"layers_to_transform={self.layers_to_transform}: everything is off."
            )


def _join(config: LayerwiseConfig, **parts: Any) -> AutoPEFTConfig:
    return AutoPEFTConfig(
        task_type=config.task_type,
        inference_mode=config.inference_mode,
        layers_to_transform=config.layers_to_transform,
        modules_to_save=config.modules_to_save,
        init_weights=config.init_weights,
        **parts,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _size(value: Any, name: str) -> int | list[int]:
    if _is_count(value):
        return int(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_count, value)):
        if value:
            return [int(v) for v in value]
    raise ConfigError(
        f"{name} must be an int >= 0 or a list with one such int per layer, got {value!r}."
    )


def _layers(value: Any) -> list[int] | None:
    if value is None:
        return None
    layers = [value] if isinstance(value, int) else value
    if (
        not isinstance(layers, Sequence | set | range)
        or isinstance(layers, str)
        or not all(map(_is_count, layers))
        or len(set(layers)) != len(layers)
    ):
        raise ConfigError(
            f"layers_to_transform must be None, an index or distinct indices >= 0, got {value!r}."
        )
    if not layers:
        raise ConfigError(
            "layers_to_transform is empty: everything is off. Name at least one layer, or None "
            "for all of them."
        )
    return sorted(int(layer) for layer in layers)


def _per_layer(size: int | list[int], name: str, num_layers: int) -> list[int]:
    if isinstance(size, int):
        return [size] * num_layers
    if len(size) != num_layers:
        raise ConfigError(
            f"{name} must be one int or a list of {num_layers}, one per layer of the model, "
            f"got {len(size)}: {size}."
        )
    return size
