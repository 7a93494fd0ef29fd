"""Saves an adapter that is only low-rank as PEFT's own LoRA, with identical outputs.

A checkpoint of that kind needs none of our code: it loads, merges and is served wherever LoRA is.

    W x + scale B A x     ours: scale; PEFT's: lora_alpha / r, hence lora_alpha = scale * r

Imports `errors`, `tuner`; imported by the package's `__init__`.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..errors import ConfigError
from ..tuner.config import AutoPEFTConfig, LayerwiseConfig
from ..tuner.site import Site

__all__ = ["save_as_lora"]

OURS = "autopeft_"


@dataclass(frozen=True)
class Update:
    """The low-rank update of one linear module.

    Attributes:
        down: A, ``r x in``.
        up: B, ``out x r``.
        transposed: Whether the module is a `Conv1D`, which keeps its weight as ``in x out``.
    """

    down: Tensor
    up: Tensor
    transposed: bool

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def save_as_lora(
    peft_model: PeftModel, directory: str | Path, *, adapter_name: str = "default"
) -> LoraConfig:
    """Saves a low-rank adapter as a plain LoRA checkpoint; returns its configuration.

    Modules in `modules_to_save` go with it. The model itself stays as it is.

    Args:
        peft_model: A model with the adapter.
        directory: Where to; created if need be. Not where the adapter is saved in our own format,
            since the files have the same names.
        adapter_name: Which adapter.

    Raises:
        ConfigError: The adapter has other parts as well, or is none of ours; or the directory
            holds a checkpoint of another method.
    """
    config = _checked_config(peft_model, adapter_name)
    updates = _updates(peft_model, adapter_name)
    folder = Path(directory)
    _refuse_other_method(folder)
    lora = _lora_config(peft_model, config, updates)
    state = {
        key: value
        for key, value in get_peft_model_state_dict(peft_model, adapter_name=adapter_name).items()
        if f".{OURS}" not in key
    }
    for name, update in updates.items():
        state[f"base_model.model.{name}.lora_A.weight"] = update.down
        state[f"base_model.model.{name}.lora_B.weight"] = update.up
    folder.mkdir(parents=True, exist_ok=True)
    # clones, since safetensors does not write one storage under two names
    tensors = {key: value.detach().clone().contiguous() for key, value in state.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    lora.save_pretrained(str(folder), auto_mapping_dict=_auto_mapping(peft_model, config))
    peft_model.create_or_update_model_card(str(folder))
    return lora


def _checked_config(peft_model: PeftModel, adapter_name: str) -> AutoPEFTConfig:
    configs = peft_model.peft_config
    if adapter_name not in configs:
        raise ConfigError(f"adapter_name must be one of {sorted(configs)}, got {adapter_name!r}.")
    config = configs[adapter_name]
    if not isinstance(config, LayerwiseConfig):
        raise ConfigError(
            f"The adapter must be one of peft_autoconfig's, got {type(config).__name__}; save it "
            "with `save_pretrained`."
        )
    joined = config.joined()
    joined.base_model_name_or_path = config.base_model_name_or_path
    return joined


def _updates(peft_model: PeftModel, adapter_name: str) -> dict[str, Update]:
    """Returns the updates of an adapter by the names that the modules have in the base model."""
    updates = {}
    for site in peft_model.modules():
        if not isinstance(site, Site):
            continue
        others = [
            name
            for name in site.adapter_layer_names
            if adapter_name in getattr(site, name) and not name.startswith(f"{OURS}lora_")
        ]
        if others:
            raise ConfigError(
                f"Only a configuration that is low-rank alone can be saved as LoRA, but adapter "
                f"{adapter_name!r} has {others} too; save it with `save_pretrained`."
            )
        for label, name in site.projections.items():
            down = getattr(site, f"{OURS}lora_down_{label}")
            if adapter_name in down:
                up = getattr(site, f"{OURS}lora_up_{label}")
                updates[name] = Update(
                    down[adapter_name].weight,
                    up[adapter_name].weight,
                    isinstance(site.hooks[label].module, Conv1D),
                )
    return updates


def _lora_config(
    peft_model: PeftModel, config: AutoPEFTConfig, updates: dict[str, Update]
) -> LoraConfig:
    ranks = {name: update.rank for name, update in updates.items()}
    ((rank, _),) = Counter(ranks.values()).most_common(1)
    # "^" for the module of exactly that name, not of one that ends in it
    rank_pattern = {f"^{name}": r for name, r in ranks.items() if r != rank}
    return LoraConfig(
        r=rank,
        lora_alpha=_alpha(config.lora_scale, rank),
        rank_pattern=rank_pattern,
        alpha_pattern={name: _alpha(config.lora_scale, r) for name, r in rank_pattern.items()},
        target_modules=_target_modules(peft_model, config, set(updates)),
        lora_dropout=config.dropout,
        fan_in_fan_out=any(update.transposed for update in updates.values()),
        modules_to_save=config.modules_to_save,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    )


def _alpha(scale: float, rank: int) -> int:
    alpha = scale * rank
    # PEFT says int, and computes with what is there
    return int(alpha) if alpha == int(alpha) else alpha  # type: ignore[return-value]


def _target_modules(
    peft_model: PeftModel, config: AutoPEFTConfig, wanted: set[str]
) -> list[str] | str:
    """Returns the shortest `target_modules` by which PEFT finds the wanted modules and no other."""
    names = {
        name.replace(".base_layer", "")
        for name, _ in peft_model.get_base_model().named_modules()
        if OURS not in name
    }
    last_parts = sorted({name.rsplit(".", 1)[-1] for name in wanted})
    for targets in (last_parts, sorted(wanted)):
        plain = LoraConfig(target_modules=targets, modules_to_save=config.modules_to_save)
        if {name for name in names if check_target_module_exists(plain, name)} == wanted:
            return targets
    return "|".join(re.escape(name) for name in sorted(wanted))


def _auto_mapping(peft_model: PeftModel, config: AutoPEFTConfig) -> dict[str, Any] | None:
    # by which `AutoPeftModel` finds the class of the base model, as PEFT saves it
    if config.task_type is not None:
        return None
    kind = type(peft_model.get_base_model())
    return {"base_model_class": kind.__name__, "parent_library": kind.__module__}


def _refuse_other_method(folder: Path) -> None:
    try:
        record = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    method = record.get("peft_type") if isinstance(record, dict) else None
    if method != "LORA":
        raise ConfigError(
            f"{folder} holds an adapter of the method {method!r}, which would be overwritten; name "
            "another directory."
        )
