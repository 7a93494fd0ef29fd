"""The plan of an injection: which site each module becomes and what it gets.

Made, with all its checks, before anything in the model is changed.

Imports `errors`, `config`, `attention`, `placement`, `low_rank`, `site`; imported by `model`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from ..errors import ConfigError, PlacementError
from .attention import check_prefix
from .config import PARTS, AutoPEFTConfig, LayerSizes, LayerwiseConfig
from .low_rank import linear_sizes
from .modules import is_attention
from .placement import LayerPlaces, find_layers
from .site import Site

__all__ = ["Kind", "SitePlan", "is_wanted", "make_plan"]


class Kind(Enum):
    """What stands in the place of a module."""

    ATTENTION = "attention"
    FEED_FORWARD = "feed-forward"
    POST_NORM = "post-norm"


@dataclass(frozen=True)
class SitePlan:
    """What one module becomes.

    Attributes:
        kind: The kind of its site.
        parts: Sizes of the parts at this site.
        sizes: Sizes of input and output of the sub-layer; (0, 0) at an attention named as a target.
        first_module: Name of the module whose input is that of the sub-layer, or None.
        projections: label -> name of the linear modules that get low-rank updates.
    """

    kind: Kind
    parts: LayerSizes
    sizes: tuple[int, int]
    first_module: str | None
    projections: Mapping[str, str]


def make_plan(model: nn.Module, config: LayerwiseConfig) -> dict[str, SitePlan]:
    """Returns the plan of each module of ``model`` that ``config`` gives a part, by its name.

    Raises:
        ConfigError: Layer indices or per-layer sizes do not fit the model.
        PlacementError: The model has no place for a part, or another adapter's site is there.
    """
    joined = config.joined()
    plan: dict[str, SitePlan] = {}
    if joined.target_modules is None:
        layers = find_layers(model)
        _check_shared_layers(layers, joined)
        for places, sizes in zip(layers, joined.layer_sizes(len(layers)), strict=True):
            plan.update(_plan_layer(model, joined, places, sizes))
        _check_low_rank(plan, layers, joined)
    else:
        targets = _find_targets(model, joined)
        for name, sizes in zip(targets, joined.layer_sizes(len(targets)), strict=True):
            plan.update(_plan_target(model.get_submodule(name), name, sizes))
    _check_nesting(model, plan)
    return plan


def is_wanted(config: LayerwiseConfig, name: str) -> bool:
    """Returns whether `target_modules`, `exclude_modules` and `modules_to_save` let a module in."""
    fields = SimpleNamespace(
        target_modules=".*" if config.target_modules is None else config.target_modules,
        exclude_modules=config.exclude_modules,
        modules_to_save=config.modules_to_save,
        target_parameters=None,
    )
    return bool(check_target_module_exists(fields, name))


def _plan_layer(
    model: nn.Module, config: AutoPEFTConfig, places: LayerPlaces, sizes: LayerSizes
) -> Iterator[tuple[str, SitePlan]]:
    widths = places.hidden_size, places.hidden_size
    projections = _wanted_projections(config, "attention", places.attention_projections)
    parts = LayerSizes(prefix=sizes.prefix, lora=sizes.lora if projections else 0)
    if any(parts) and is_wanted(config, places.attention):
        if parts.prefix:
            check_prefix(_unwrap(model.get_submodule(places.attention)))
        plan = SitePlan(Kind.ATTENTION, parts, widths, None, projections if parts.lora else {})
        yield places.attention, plan
    projections = _wanted_projections(config, "feed_forward", places.feed_forward_projections)
    parts = sizes._replace(prefix=0, lora=sizes.lora if projections else 0)
    if any(parts) and is_wanted(config, places.feed_forward):
        kind = Kind.POST_NORM if places.ends_in_norm else Kind.FEED_FORWARD
        projections = projections if parts.lora else {}
        yield (
            places.feed_forward,
            SitePlan(kind, parts, widths, places.first_module, projections),
        )


def _plan_target(module: nn.Module, name: str, sizes: LayerSizes) -> Iterator[tuple[str, SitePlan]]:
    module = _unwrap(module)
    parts = LayerSizes(prefix=sizes.prefix) if is_attention(module) else sizes._replace(prefix=0)
    if any(sizes) and not any(parts):
        raise PlacementError(
            "Of named modules an attention takes a prefix and a linear module the other parts; "
            f"{name} ({type(module).__name__}) takes none of {sizes}. Leave it out of "
            "target_modules."
        )
    if parts.prefix:
        check_prefix(module)
        yield name, SitePlan(Kind.ATTENTION, parts, (0, 0), None, {})
    elif any(parts):
        projections = {"target": name} if parts.lora else {}
        widths = linear_sizes(module)
        yield name, SitePlan(Kind.FEED_FORWARD, parts, widths, None, projections)


def _find_targets(model: nn.Module, config: AutoPEFTConfig) -> list[str]:
    sites = [name + "." for name, module in model.named_modules() if isinstance(module, Site)]
    return [
        name
        for name, _ in model.named_modules()
        if name and not name.startswith(tuple(sites)) and is_wanted(config, name)
    ]


def _wanted_projections(
    config: AutoPEFTConfig, place: str, found: Mapping[str, str]
) -> dict[str, str]:
    if isinstance(config.lora_modules, str):
        if config.lora_modules not in (place, "all"):
            return {}
        wanted = dict(found)
    else:
        ends = tuple(f".{name}" for name in config.lora_modules)
        wanted = {label: name for label, name in found.items() if f".{name}".endswith(ends)}
    return {label: name for label, name in wanted.items() if is_wanted(config, name)}


def _unwrap(module: nn.Module) -> nn.Module:
    return module.base_layer if isinstance(module, Site) else module


def _check_shared_layers(layers: list[LayerPlaces], config: AutoPEFTConfig) -> None:
    if all(places.repeats == 1 for places in layers):
        return
    lists = [n for n in PARTS.values() if isinstance(getattr(config, n), list)]
    if config.layers_to_transform is not None:
        lists.append("layers_to_transform")
    if lists:
        raise ConfigError(
            f"The layers of this model share their weights ({layers[0].repeats} runs of one), so "
            f"they cannot be chosen one by one: leave out {lists} or give one int for all layers."
        )


def _check_low_rank(
    plan: Mapping[str, SitePlan], layers: list[LayerPlaces], config: AutoPEFTConfig
) -> None:
    if not config.lora_rank or any(site.projections for site in plan.values()):
        return
    labels = sorted({*layers[0].attention_projections, *layers[0].feed_forward_projections})
    raise PlacementError(
        f"No linear module of this model fits lora_modules={config.lora_modules!r}; its first "
        f"layer has {labels}."
    )


def _check_nesting(model: nn.Module, plan: Mapping[str, SitePlan]) -> None:
    sites = {name for name, module in model.named_modules() if isinstance(module, Site)}
    sites.update(plan)
    for name in plan:
        inner = sorted(site for site in sites if site.startswith(name + "."))
        if inner:
            raise PlacementError(
                f"Both {name} and {inner[0]} within it would get parts, of one adapter or of two. "
                "Name one of them alone in target_modules, or leave target_modules out."
            )
