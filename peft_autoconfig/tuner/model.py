"""The tuner: puts the parts of a configuration into a model, by PEFT's own injection loop.

One tuner serves all configuration classes. PEFT wants a class with a prefix of its own for each
method, hence the four short ones at the end.

Imports `config`, `placement` and the sites; imported by the package's `__init__`.
"""

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from ..errors import ConfigError
from .attention import check_implementation
from .bottleneck import FeedForwardSite, PostNormSite
from .config import LayerSizes, LayerwiseConfig
from .placement import LayerPlaces, find_layers, key_value_shape
from .prefix import AttentionSite
from .site import Site

__all__ = ["AutoPEFTModel", "LayerPrefixModel", "ParallelAdapterModel", "SerialAdapterModel"]


class _LayerwiseTuner(BaseTuner):
    """Wraps the places that a configuration asks for; abstract.

    Raises:
        ConfigError: Layer indices or per-layer sizes do not fit the model.
        PlacementError: The model has no such place. Either way the model is left untouched.
    """

    tuner_layer_cls = Site
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (read by PEFT, as it is)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:  # type: ignore[type-arg]
        return peft_config

    def _prepare_model(self, peft_config: LayerwiseConfig, model: nn.Module) -> None:  # type: ignore[override]
        """Plans the injection: module name -> (places, sizes) for every layer of the model."""
        places = find_layers(model)
        sizes = peft_config.layer_sizes(len(places))
        self._plan: dict[str, tuple[LayerPlaces, LayerSizes]] = {}
        for place, size in zip(places, sizes, strict=True):
            self._plan[place.feed_forward] = (place, size)
            self._plan[place.attention] = (place, size)
            if size.prefix:
                check_implementation(model.get_submodule(place.attention).config)

    def _check_target_module_exists(self, peft_config: PeftConfig, key: str) -> bool:  # type: ignore[override]
        if key not in self._plan:
            return False
        places, sizes = self._plan[key]
        return bool(sizes.prefix if key == places.attention else sizes.serial or sizes.parallel)

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: LayerwiseConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if current_key not in self._plan:
            raise ConfigError(
                f"The adapter has weights for {current_key}, which is no place of this model; "
                f"it has {sorted(self._plan)}. Was it saved from another architecture?"
            )
        places, sizes = self._plan[current_key]
        if isinstance(target, Site):
            site = target
        else:
            site = self._new_site(target, current_key, places)
            # the site takes over the names of adapters that are active elsewhere in the model
            site.set_adapter(self.active_adapters)
            self._replace_module(parent, target_name, site, target)
        site.update_layer(adapter_name, sizes, peft_config.joined())
        if adapter_name not in self.active_adapters:
            site.set_requires_grad(adapter_name, False)

    def _new_site(self, target: nn.Module, key: str, places: LayerPlaces) -> Site:
        if key == places.attention:
            num_heads, head_dim = key_value_shape(target)
            return AttentionSite(target, num_heads=num_heads, head_dim=head_dim)
        site = PostNormSite if places.ends_in_norm else FeedForwardSite
        first_module = places.first_module and self.model.get_submodule(places.first_module)
        return site(target, hidden_size=places.hidden_size, first_module=first_module or None)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT's own copies weights that an attention or a whole sub-layer does not have
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        for module in self.model.modules():
            if isinstance(module, Site):
                module.merge()


class AutoPEFTModel(_LayerwiseTuner):
    """The tuner of `AutoPEFTConfig`."""

    prefix = "autopeft_"


class SerialAdapterModel(_LayerwiseTuner):
    """The tuner of `SerialAdapterConfig`."""

    prefix = "autopeft_serial_"


class ParallelAdapterModel(_LayerwiseTuner):
    """The tuner of `ParallelAdapterConfig`."""

    prefix = "autopeft_parallel_"


class LayerPrefixModel(_LayerwiseTuner):
    """The tuner of `LayerPrefixConfig`."""

    prefix = "autopeft_prefix_"
