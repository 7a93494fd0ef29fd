"""What a base model tells a search space: its layers and the sizes that its parts must have.

Read from the modules, as the tuner will place the parts, and not from the names of a config's
attributes: those count the layers of an encoder alone, or weights that layers share once a layer.
A config is enough; the model is then built on the meta device, without weights.

Imports `errors` and `tuner`; imported by `space`.
"""

from collections.abc import Container, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from ..errors import ConfigError, PlacementError
from ..tuner.attention import attention_sizes, check_prefix
from ..tuner.config import AutoPEFTConfig
from ..tuner.low_rank import linear_sizes
from ..tuner.placement import LayerPlaces, find_layers
from ..tuner.plan import make_plan

__all__ = ["read_structure"]


def read_structure(
    model_or_config: Any, *, given: Container[str] = (), lora_modules: Any = None
) -> dict[str, int]:
    """Returns ``num_layers``, ``hidden_size``, ``key_value_size`` and ``low_rank_size``.

    The third is missing where no prefix can be, the fourth unless low-rank updates are asked for.
    Layers that share their weights count once, those of an encoder-decoder all.

    Args:
        model_or_config: A model, or its Transformers config.
        given: Names that need not be found.
        lora_modules: As in `AutoPEFTConfig`; None for no low-rank updates.

    Raises:
        ConfigError: It is neither, or its layers differ in a size.
        PlacementError: The model has no layers that the tuner knows, or no module that fits
            ``lora_modules``.
    """
    model = _model_of(model_or_config)
    layers = find_layers(model)
    sizes: dict[str, list[int]] = {"hidden_size": [places.hidden_size for places in layers]}
    with suppress(PlacementError):
        attentions = [model.get_submodule(places.attention) for places in layers]
        for attention in attentions:
            check_prefix(attention)
        heads = [attention_sizes(attention) for attention in attentions]
        sizes["key_value_size"] = [size.num_heads * size.head_dim for size in heads]
    if lora_modules is not None:
        sizes["low_rank_size"] = list(_low_rank_sizes(model, layers, lora_modules))
    shared = {name: _shared(name, sizes[name]) for name in sizes if name not in given}
    return {"num_layers": len(layers), **shared}


def _model_of(model_or_config: Any) -> nn.Module:
    if isinstance(model_or_config, nn.Module):
        return model_or_config
    if not isinstance(model_or_config, PreTrainedConfig):
        raise ConfigError(
            f"expected a model or its Transformers config, got {type(model_or_config).__name__}; "
            "or make a SearchSpace with num_layers=... and hidden_size=..."
        )
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModel.from_config(model_or_config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(
            f"expected a config that transformers.AutoModel can build, got "
            f"{type(model_or_config).__name__}; give the model itself"
        ) from error
    return model


def _low_rank_sizes(
    model: nn.Module, layers: list[LayerPlaces], lora_modules: Any
) -> Iterator[int]:
    """Yields the inputs and outputs, summed over its updated modules, of each layer."""
    plan = make_plan(model, AutoPEFTConfig(lora_rank=1, lora_modules=lora_modules))
    updated = {name for site in plan.values() for name in site.projections.values()}
    for places in layers:
        names = {
            *places.attention_projections.values(),
            *places.feed_forward_projections.values(),
        }
        yield sum(sum(linear_sizes(model.get_submodule(name))) for name in names & updated)


def _shared(name: str, sizes: list[int]) -> int:
    """Returns the size that all layers have."""
    if len(set(sizes)) > 1:
        advice = (
            "choose other lora_modules, 'feed_forward' say"
            if name == "low_rank_size"
            else "search over a single stack of its layers"
        )
        raise ConfigError(
            f"expected a model with the same {name} in every layer, as a space shares its sizes, "
            f"got {sizes}; {advice}"
        )
    return sizes[0]
