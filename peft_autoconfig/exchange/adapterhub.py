"""Reads adapters that AdapterHub's library `adapters` saved, with equal outputs.

    folder of `save_adapter` -> fields checked -> weights regrouped by layer -> PeftModel of ours

Read are bottlenecks after or beside the feed-forward sub-layer (`seq_bn`, `par_bn`), prefixes, and
unions of them, of BERT, RoBERTa, XLM-R and ELECTRA. What cannot give equal outputs raises and names
the field. Nothing is unpickled: `adapter.safetensors` is preferred, and a `.bin` is read by
`torch.load(weights_only=True)`, which refuses everything but tensors.

Imports `errors`, `adapterhub_fields`, `adapterhub_weights`; imported by the package's `__init__`.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ConfigError
from .adapterhub_fields import read_methods
from .adapterhub_weights import Shape, Weights, convert, sort_by_place

__all__ = ["from_adapterhub"]

logger = logging.getLogger(__name__)

SAFE_WEIGHTS, PICKLED_WEIGHTS = "adapter.safetensors", "pytorch_adapter.bin"
HEADS = ("model_head.safetensors", "pytorch_model_head.bin")
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "electra")
OUR_KEY = re.compile(r"\.layer\.(\d+)\..*\.autopeft_(serial|parallel|prefix)_(.+)$")


def from_adapterhub(
    path: str | Path,
    model: PreTrainedModel,
    *,
    adapter_name: str = "default",
    is_trainable: bool = False,
) -> PeftModel:
    """Returns ``model`` with an adapter that AdapterHub's library `adapters` saved.

    It gives the outputs that it gave there; `save_pretrained` then writes an ordinary PEFT
    checkpoint. A serial adapter's factor, and one for each channel, is multiplied into the
    up-projection; a reparametrised prefix is folded into the keys and values that it yields. Heads
    are not read, since theirs are other modules than transformers'.

    Args:
        path: The folder that `save_adapter` wrote.
        model: The base model, with or without a head; changed in place, as by `get_peft_model`.
        adapter_name: The adapter's name in the returned model.
        is_trainable: Whether the adapter is to be trained further, else it is frozen.

    Raises:
        ConfigError: The folder is incomplete or damaged, does not belong to such a model, or asks
            for something that has no equal here. The model is then left untouched.
    """
    folder = Path(path)
    record = _read_record(folder)
    shape = _check_model(record, model)
    tensors = _read_tensors(folder)
    layers, prefix = sort_by_place(tensors, record["name"])
    config, weights = convert(read_methods(record), layers, prefix, shape)
    config.inference_mode = not is_trainable
    for head in HEADS:
        if (folder / head).is_file():
            logger.warning("The head in %s is not read; train or load one with the model.", head)
    peft_model = get_peft_model(model, config, adapter_name=adapter_name)
    _fill(peft_model, weights, adapter_name)
    return peft_model if is_trainable else peft_model.eval()


def _read_record(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is not a regular file")  # a pipe would never end
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Expected a folder as `save_adapter` of AdapterHub's library writes it, but "
            f"{file} cannot be read: {error}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}. Get the adapter anew.") from error
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise ConfigError(
            f"{file} must hold the 'name' and 'config' of an AdapterHub adapter, found {found}. "
            "An adapter of PEFT is loaded with `PeftModel.from_pretrained`."
        )
    return record


def _check_model(record: Mapping[str, Any], model: PreTrainedModel) -> Shape:
    config = model.config
    saved, given = record.get("model_type"), config.model_type
    if saved not in MODEL_TYPES or saved != given:
        raise ConfigError(
            f"'model_type' must be that of the model and one of {MODEL_TYPES}, got {saved!r} for "
            f"a model of type {given!r}."
        )
    if record.get("hidden_size") != config.hidden_size:
        raise ConfigError(
            f"'hidden_size' must be that of the model, {config.hidden_size}, got "
            f"{record.get('hidden_size')!r}. Was the adapter trained on another size of {saved}?"
        )
    return Shape(config.hidden_size, config.num_hidden_layers, config.num_attention_heads)


def _read_tensors(folder: Path) -> Weights:
    file = folder / SAFE_WEIGHTS
    if not file.is_file():
        file = folder / PICKLED_WEIGHTS
    if not file.is_file():
        raise ConfigError(f"{folder} must hold {SAFE_WEIGHTS} or {PICKLED_WEIGHTS}, found neither.")
    try:
        if file.name == SAFE_WEIGHTS:
            return load_file(file)
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has errors of its own for what is not its format
        raise ConfigError(
            f"{file} is damaged or holds more than tensors: {error}. Get the adapter anew, as "
            "safetensors if you can."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ConfigError(f"{file} must hold tensors by name, got {type(tensors).__name__}.")
    return tensors


def _fill(peft_model: PeftModel, weights: Weights, adapter_name: str) -> None:
    """Copies the weights into the adapter, whose places are those that its config gave it."""
    state = {}
    for key in get_peft_model_state_dict(peft_model, adapter_name=adapter_name):
        match = OUR_KEY.search(key)
        if match:
            layer, part, piece = match.groups()
            state[key] = weights.pop(f"{part}.{layer}.{piece.replace('_', '.')}")
    if weights:
        raise ConfigError(
            f"Weights that found no place in the model: {sorted(weights)}; please report the kind "
            "of model."
        )
    set_peft_model_state_dict(peft_model, state, adapter_name=adapter_name)
