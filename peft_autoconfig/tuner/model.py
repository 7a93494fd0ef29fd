"""The tuner: puts the parts of a configuration into a model, by PEFT's own injection loop.

One tuner serves all configuration classes. PEFT wants a class with a prefix of its own for each
method, hence the short ones at the end.

Imports `errors`, `config`, `plan` and the sites; imported by the package's `__init__`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import (
    BaseTuner,
    _maybe_include_all_linear_layers,
    check_target_module_exists,
)
from torch import Tensor, nn

from ..errors import ConfigError
from .bottleneck import FeedForwardSite, PostNormSite
from .checkpoint import check_weights, take_off
from .config import LayerwiseConfig
from .plan import Kind, SitePlan, is_wanted, make_plan
from .prefix import AttentionSite
from .site import Site

__all__ = [
    "AutoPEFTModel",
    "LayerPrefixModel",
    "LowRankModel",
    "ParallelAdapterModel",
    "SerialAdapterModel",
]


class _LayerwiseTuner(BaseTuner):
    """Wraps the places that a configuration asks for; abstract.

    Raises:
        ConfigError: Layer indices or per-layer sizes do not fit the model.
        PlacementError: The model has no such place. Either way the model is left untouched.
    """

    tuner_layer_cls = Site
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (read by PEFT, as it is)

    def fold_prefixes(self, adapter_name: str = "default") -> None:
        """Puts keys and values in the place of an adapter's projected prefixes.

        What the model computes stays the same; the adapter gets smaller, and its prefixes can no
        longer be trained through the projection.
        """
        for site in self._sites():
            if isinstance(site, AttentionSite):
                site.fold(adapter_name)
        config = self.peft_config[adapter_name]
        for name in ("prefix_projection_size", "projection_size"):
            if hasattr(config, name):
                setattr(config, name, 0)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: LayerwiseConfig,  # type: ignore[override]
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Returns saved weights by the model's names for them, after a check that they fit."""
        remapped = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        try:
            check_weights(model, adapter_name, remapped)
        except ConfigError:
            if config.awaits_weights:
                tuner = getattr(model, "base_model", None)
                take_off(model, adapter_name, getattr(tuner, "_trained", []))
            raise
        config.awaits_weights = False
        return remapped

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: Any,
    ) -> dict[str, Tensor]:
        """Returns the entries of the adapter, also where FSDP has marked the names of modules."""
        sites = {
            name.replace("_fsdp_wrapped_module.", "")
            for name, module in model.named_modules()
            if isinstance(module, Site)
        }
        return {k: v for k, v in state_dict.items() if k.split(".autopeft_")[0] in sites}

    def _sites(self) -> list[Site]:
        return [module for module in self.model.modules() if isinstance(module, Site)]

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:  # type: ignore[type-arg]
        return peft_config

    def _prepare_model(self, peft_config: LayerwiseConfig, model: nn.Module) -> None:  # type: ignore[override]
        if not hasattr(self, "_trained"):
            self._trained = [n for n, p in model.named_parameters() if p.requires_grad]
        _maybe_include_all_linear_layers(peft_config, model)
        self._plan = make_plan(model, peft_config)

    def _check_target_module_exists(self, peft_config: LayerwiseConfig, key: str) -> Any:  # type: ignore[override]
        # PEFT counts what its own function says is excluded
        if peft_config.exclude_modules and not is_wanted(peft_config, key):
            return check_target_module_exists(peft_config, key)
        return key in self._plan

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
        plan, config = self._plan[current_key], peft_config.joined()
        if isinstance(target, Site):
            site = target
        else:
            site = self._new_site(target, plan)
            # the site takes over the names of adapters that are active elsewhere in the model
            site.set_adapter(self.active_adapters)
            self._replace_module(parent, target_name, site, target)
        if plan.projections:
            projections = {
                label: (name.replace(".base_layer", ""), self._linear(name))
                for label, name in plan.projections.items()
            }
            site.update_low_rank(adapter_name, plan.parts.lora, config, projections)
        site.update_layer(adapter_name, plan.parts, config)
        if adapter_name not in self.active_adapters:
            site.set_requires_grad(adapter_name, False)

    def _new_site(self, target: nn.Module, plan: SitePlan) -> Site:
        if plan.kind is Kind.ATTENTION:
            return AttentionSite(target, plan.sizes[0])
        first_module = plan.first_module and self.model.get_submodule(plan.first_module)
        site = PostNormSite if plan.kind is Kind.POST_NORM else FeedForwardSite
        return site(target, sizes=plan.sizes, first_module=first_module or None)

    def _linear(self, name: str) -> nn.Module:
        # a site in between passes attributes on; one that took the module's own name wraps it
        module = self.model.get_submodule(name)
        return module.get_base_layer() if isinstance(module, Site) else module

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT's own copies weights that an attention or a whole sub-layer does not have
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        super()._check_merge_allowed()  # type: ignore[no-untyped-call]
        for site in self._sites():
            site.check_mergeable(site.active_adapters)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Tells every site the adapter of each row of a mixed batch, for one forward pass."""
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        self._check_mixed_batch(names)
        sites = self._sites()
        for site in sites:
            site.batch_adapters = list(names)
            site.num_beams = kwargs.get("num_beams") or 1
        try:
            yield
        finally:
            for site in sites:
                site.batch_adapters, site.num_beams = None, 1

    def _check_mixed_batch(self, names: list[str]) -> None:
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
        unknown = sorted(set(names) - set(self.peft_config) - {"__base__"})
        if unknown:
            raise ValueError(
                f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}; this model "
                f'has {sorted(self.peft_config)}, and "__base__" stands for none.'
            )
        if any(site.merged for site in self._sites()):
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call "
                "`unmerge_adapter` first."
            )


class AutoPEFTModel(_LayerwiseTuner):
    """The tuner of `AutoPEFTConfig`."""

    prefix = "autopeft_"


class SerialAdapterModel(_LayerwiseTuner):
    """The tuner of `SerialAdapterConfig`."""

    prefix = "autopeft_serial_"


class ParallelAdapterModel(_LayerwiseTuner):
    """The tuner of `ParallelAdapterConfig`."""

    prefix = "autopeft_parallel_"


class LowRankModel(_LayerwiseTuner):
    """The tuner of `LowRankConfig`."""

    prefix = "autopeft_lora_"


class LayerPrefixModel(_LayerwiseTuner):
    """The tuner of `LayerPrefixConfig`."""

    prefix = "autopeft_prefix_"
