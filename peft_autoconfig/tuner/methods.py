"""The configurations of one part each.

Imports `config`; imported by the package's `__init__`.
"""

from dataclasses import dataclass, field
from typing import Any

from peft.utils import PeftType

from .config import PARALLEL_SCALE, AutoPEFTConfig, LayerwiseConfig

__all__ = [
    "LayerPrefixConfig",
    "LowRankConfig",
    "ParallelAdapterConfig",
    "SerialAdapterConfig",
]


@dataclass
class SerialAdapterConfig(LayerwiseConfig):
    """A bottleneck after the feed-forward sub-layer, as Pfeiffer et al. (2021), arXiv 2005.00247.

    Args:
        bottleneck_size: Width of the bottleneck, at least 1; one int for all layers or one per
            layer with 0 for none. The default is the published one for a hidden size of 768.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
        dropout: Probability in [0, 1) of dropping an output of the adapter, in training.
    """

    bottleneck_size: int | list[int] = field(
        default=48, metadata={"help": "Width of the bottleneck, shared or one per layer."}
    )
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )
    dropout: float = field(default=0.0, metadata={"help": "Probability of dropping, in [0, 1)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_SERIAL"]
        self.joined()

    def joined(self) -> AutoPEFTConfig:
        return _join(
            self,
            serial_bottleneck_size=self.bottleneck_size,
            activation=self.activation,
            dropout=self.dropout,
        )


@dataclass
class ParallelAdapterConfig(LayerwiseConfig):
    """A bottleneck beside the feed-forward sub-layer, as He et al. (2022), arXiv 2110.04366.

    Args:
        bottleneck_size: Width of the bottleneck, at least 1; one int for all layers or one per
            layer with 0 for none. The default is the published one for a hidden size of 768.
        activation: Name of an activation in `transformers.activations.ACT2FN`.
        scale: Factor of the adapter's output, above 0; 4.0 as published. "learned" trains one
            factor per layer, from 4.0 on.
        dropout: Probability in [0, 1) of dropping an output of the adapter, in training.
    """

    bottleneck_size: int | list[int] = field(
        default=384, metadata={"help": "Width of the bottleneck, shared or one per layer."}
    )
    activation: str = field(
        default="relu", metadata={"help": "Activation between the two projections."}
    )
    scale: float | str = field(
        default=PARALLEL_SCALE, metadata={"help": "Factor of the adapter's output, or 'learned'."}
    )
    dropout: float = field(default=0.0, metadata={"help": "Probability of dropping, in [0, 1)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_PARALLEL"]
        self.joined()

    def joined(self) -> AutoPEFTConfig:
        return _join(
            self,
            parallel_bottleneck_size=self.bottleneck_size,
            activation=self.activation,
            parallel_scale=self.scale,
            dropout=self.dropout,
        )


@dataclass
class LayerPrefixConfig(LayerwiseConfig):
    """Trained keys and values before those of each layer's attention, as Li and Liang (2021).

    Unlike PEFT's own prefix tuning (arXiv 2101.00190), the positions of real tokens are not
    shifted, the layers can be chosen one by one, and lengths may differ between them.

    Args:
        prefix_length: Number of prefix positions, at least 1; one int for all layers or one per
            layer with 0 for none.
        projection_size: 0 trains keys and values themselves; above 0, see
            `AutoPEFTConfig.prefix_projection_size`.
    """

    prefix_length: int | list[int] = field(
        default=10, metadata={"help": "Number of prefix positions, shared or one per layer."}
    )
    projection_size: int = field(
        default=0, metadata={"help": "Width of the projection of the prefixes; 0 for none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_PREFIX"]
        self.joined()

    def joined(self) -> AutoPEFTConfig:
        return _join(
            self, prefix_length=self.prefix_length, prefix_projection_size=self.projection_size
        )


@dataclass
class LowRankConfig(LayerwiseConfig):
    """A low-rank update of linear modules, as LoRA of Hu et al. (2022), arXiv 2106.09685.

    Unlike PEFT's own, it places itself by the structure of the model and counts as a part of an
    `AutoPEFTConfig`; `exchange.save_as_lora` saves it as PEFT's own.

    Args:
        rank: Rank of the updates, at least 1; one int for all layers or one per layer with 0 for
            none.
        scale: Factor of the updates, above 0; what PEFT calls ``lora_alpha / r``.
        modules: The linear modules that get updates: those of the "attention", of the
            "feed_forward" sub-layer, "all", or a list of (ends of) their names.
        dropout: Probability in [0, 1) of dropping an input of an update, in training.
    """

    rank: int | list[int] = field(
        default=8, metadata={"help": "Rank of the updates, shared or one per layer."}
    )
    scale: float = field(default=1.0, metadata={"help": "Factor of the updates."})
    modules: str | list[str] = field(
        default="all",
        metadata={"help": "'attention', 'feed_forward', 'all', or names of linear modules."},
    )
    dropout: float = field(default=0.0, metadata={"help": "Probability of dropping, in [0, 1)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["AUTOPEFT_LORA"]
        self.modules = self.joined().lora_modules

    def joined(self) -> AutoPEFTConfig:
        return _join(
            self,
            lora_rank=self.rank,
            lora_scale=self.scale,
            lora_modules=self.modules,
            dropout=self.dropout,
        )


def _join(config: LayerwiseConfig, **parts: Any) -> AutoPEFTConfig:
    return AutoPEFTConfig(
        peft_version=config.peft_version,
        task_type=config.task_type,
        inference_mode=config.inference_mode,
        layers_to_transform=config.layers_to_transform,
        modules_to_save=config.modules_to_save,
        init_weights=config.init_weights,
        target_modules=config.target_modules,
        exclude_modules=config.exclude_modules,
        **parts,
    )
