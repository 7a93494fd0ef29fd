"""What is checked of a saved adapter, and how a model that got a bad one is made as before.

PEFT reads the configuration, changes the model, and reads the weights last; it warns of weights
that are missing and says nothing of those that have no place. So a file is looked at with the
configuration, and weights that do not fit take the adapter off again.

Imports `errors`; imported by `config` and `model`.
"""

import os
from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["check_file", "check_weights", "take_off"]

OURS = ".autopeft_"
# PEFT's, in front of the names that the modules have in the base model
PREFIX = "base_model.model."
NUM_SHOWN = 3


def check_file(folder: str) -> None:
    """Checks that the weights in a folder, if there are any, can be read.

    Raises:
        ConfigError: The file is damaged.
    """
    file = os.path.join(folder, SAFETENSORS_WEIGHTS_NAME)
    if not os.path.isfile(file):
        return
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} is damaged: {error}. Save or download it anew.") from error


def check_weights(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Checks that an adapter's weights are all there, in the right shapes, and no others.

    Args:
        model: A model that has the adapter.
        adapter_name: The adapter.
        state_dict: What is to be loaded, by the names that the model has for it.

    Raises:
        ConfigError: They are not.
    """
    places = _shapes(model)
    if any("_fsdp_wrapped_module." in name for name in places):
        # names and shapes are those of shards
        return
    loaded = dict(state_dict)
    if not any(name.startswith(PREFIX) for name in places):
        loaded = {name.removeprefix(PREFIX): value for name, value in loaded.items()}
    wanted = {name for name in places if OURS in name and adapter_name in name.split(".")}
    faults = {
        "missing": sorted(wanted - set(loaded)),
        "without a place in the model": sorted(set(loaded) - set(places)),
        "of another shape": [
            f"{name} of shape {tuple(loaded[name].shape)} for {places[name]}"
            for name in sorted(wanted & set(loaded))
            if tuple(loaded[name].shape) != places[name]
        ],
    }
    found = [
        f"{len(names)} {fault} ({', '.join(names[:NUM_SHOWN])}{', ...' * (len(names) > NUM_SHOWN)})"
        for fault, names in faults.items()
        if names
    ]
    if found:
        raise ConfigError(
            f"The saved weights do not fit the model and the adapter's configuration: "
            f"{'; '.join(found)}. Were they saved from a model of this class and size?"
        )


def take_off(model: nn.Module, adapter_name: str, trained: list[str]) -> None:
    """Takes an adapter that could not be loaded off a model.

    Args:
        model: The model; left alone when it is not a `PeftModel`, to which the adapter was added
            by other hands.
        adapter_name: The adapter.
        trained: Names of the parameters that were trained before the first adapter came.
    """
    if not isinstance(model, PeftModel):
        return
    if len(model.peft_config) > 1:
        model.delete_adapter(adapter_name)
        return
    base_model = model.base_model.unload()  # type: ignore[operator]
    for name, parameter in base_model.named_parameters():
        parameter.requires_grad_(name in trained)
    if hasattr(base_model, "peft_config"):
        del base_model.peft_config


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, Any] = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        # DeepSpeed's, where each process holds a part and the whole is empty
        if hasattr(parameter, "ds_shape"):
            shapes[name] = parameter.ds_shape
    return {name: tuple(shape) for name, shape in shapes.items()}
