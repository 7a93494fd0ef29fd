"""The pretrained model and its tokenizer: loaded once, and lent to every training.

A training gets a model of its own that shares the frozen weights, with its task head drawn from
the training's seed and the parts that a method asks for: a PEFT configuration (ours or any other),
only the head, or, with weights of its own, all of them.

Imports `errors`, `tasks`, `shards` and `team`; imported by `lower_layers` and `trainer`.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from accelerate.utils import patch_environment
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import ConfigError
from ..tasks import Kind, Task
from .shards import Shards
from .team import Team

__all__ = ["FULL_FINE_TUNING", "LINEAR_PROBE", "Method", "Pretrained"]

LINEAR_PROBE: Literal["linear probe"] = "linear probe"
FULL_FINE_TUNING: Literal["full fine-tuning"] = "full fine-tuning"
Method = PeftConfig | Literal["linear probe", "full fine-tuning"]

logger = logging.getLogger(__name__)

UNLIMITED = 10**9
# what PEFT trains and saves with every adapter for classification
PEFT_HEADS = ("classifier", "score")
PEFT_PREFIX = "base_model.model."
# transformers' own for heads, where a config names none
HEAD_STD = 0.02


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model with a task head, and its tokenizer.

    Attributes:
        name: Local folder or Hub id.
        model: The model in evaluation mode; never trained itself.
        tokenizer: Its tokenizer.
        head: Names of the modules that the checkpoint lacks and the task adds.
        task_type: PEFT's name of what the model does.
        shards: The frozen weights, where processes divide them; `model` has none of them then.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    task_type: str = "SEQ_CLS"
    shards: Shards | None = None

    @classmethod
    def load(cls, name: str, task: Task) -> "Pretrained":
        """Returns the model of a local folder or Hub id with a head for ``task``.

        Raises:
            ConfigError: There is no such model, or it is of no use for this kind of task.
        """
        kind = task.kind
        # a launch with FSDP would else have all but one process load nothing
        whole = patch_environment(fsdp_cpu_ram_efficient_loading="false")
        with _model_errors(name, kind.name), whole:
            model, loading = kind.model_class.from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True, **kind.model_options
            )
            tokenizer = AutoTokenizer.from_pretrained(name, **kind.tokenizer_options)
        kind.check_model(model)
        _make_padding(tokenizer, model)
        # positions count from the first token of a row, to a prefix too
        tokenizer.padding_side = "right"
        tokenizer.model_max_length = min(tokenizer.model_max_length, _num_positions(model))
        return cls(name, model.eval(), tokenizer, _head(model, kind, loading), kind.task_type)

    def divided(self, team: Team, device: torch.device) -> "Pretrained":
        """Returns itself, now divided: each process of the team keeps a part of what is frozen.

        Args:
            team: The processes.
            device: Where this process keeps its part.

        Raises:
            ConfigError: The model cannot be divided.
        """
        names = (name for name, _ in self.model.named_parameters())
        kept = {name for name in names if self._is_head(name)}
        return replace(self, shards=Shards(self.model, kept, team, device))

    def whole(self) -> PreTrainedModel:
        """Returns a copy of the model.

        Raises:
            ConfigError: It is divided among processes.
        """
        if self.shards is not None:
            raise ConfigError(
                f"Expected a launch in which each process holds all of {self.name}, got one that "
                f"divides it (FSDP); launch without it."
            )
        return copy.deepcopy(self.model)

    def untrained(self, device: torch.device) -> nn.Module:
        """Returns the model as it is, on a device."""
        model: nn.Module = copy.deepcopy(self.model, self._frozen())
        if self.shards is None:
            return model.to(device)
        self.shards.lend(model).divide(model)
        return model

    def fresh(self, method: Method, *, seed: int, device: str | torch.device = "cpu") -> nn.Module:
        """Returns a model made ready for training by ``method``.

        It shares every weight that the method leaves frozen with all others, so nothing is copied
        that no training changes, and moving one to a device moves them all.

        Args:
            method: A PEFT configuration, `LINEAR_PROBE` or `FULL_FINE_TUNING`.
            seed: Seed of torch's global generator, which draws the head and the new parts.
            device: Where it is moved; one that is divided is on its own already.

        Raises:
            ConfigError: The model is divided, and the method would train a part of it.
        """
        if self.shards is not None and method == FULL_FINE_TUNING:
            raise ConfigError(
                f"Expected a method that leaves {self.name} frozen, as its weights are divided "
                f"among the processes (FSDP); full fine-tuning needs a launch without FSDP."
            )
        shared = {} if method == FULL_FINE_TUNING else self._frozen()
        model = copy.deepcopy(self.model, shared).requires_grad_(method == FULL_FINE_TUNING)
        lent = None if self.shards is None else self.shards.lend(model)
        torch.manual_seed(seed)
        for name in self.head:
            self._draw(model.get_submodule(name))
        ready: nn.Module = model
        if isinstance(method, PeftConfig):
            ready = get_peft_model(model, self._for_task(method))
        elif method == LINEAR_PROBE:
            for name in self.head:
                model.get_submodule(name).requires_grad_(True)
        if lent is None:
            return ready.to(device)
        lent.divide(ready)
        return ready

    def num_params(self, model: nn.Module) -> int:
        """Returns how many parameters of ``model`` are trained, its task head left out."""
        return sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not self._is_head(name)
        )

    def in_head(self, name: str) -> bool:
        """Returns whether a parameter or module, maybe one inside PEFT's model, is the head's."""
        own = name.removeprefix(PEFT_PREFIX)
        return own in self.head or own.startswith(tuple(f"{module}." for module in self.head))

    def _is_head(self, name: str) -> bool:
        return ".modules_to_save." in name or name.startswith(tuple(f"{m}." for m in self.head))

    @staticmethod
    def config(name: str) -> PretrainedConfig:
        """Returns the config of a model without loading its weights.

        Raises:
            ConfigError: There is no such model.
        """
        with _model_errors(name):
            config: PretrainedConfig = AutoConfig.from_pretrained(name)
        return config

    @staticmethod
    def num_base_params(config: PretrainedConfig) -> int:
        """Returns the number of parameters of the base model, without any head."""
        with init_empty_weights():
            model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        return int(model.num_parameters())

    def _frozen(self) -> dict[int, Any]:
        # A memo of `deepcopy`: what it holds is taken as it is. Not the buffers: some change.
        return {
            id(parameter): parameter
            for name, parameter in self.model.named_parameters()
            if not self._is_head(name)
        }

    def _draw(self, module: nn.Module) -> None:
        std = getattr(self.model.config, "initializer_range", HEAD_STD)
        for name, parameter in module.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _for_task(self, method: PeftConfig) -> PeftConfig:
        config = copy.deepcopy(method)
        config.task_type = self.task_type
        # PEFT trains and saves modules that are called classifier or score; heads may have more
        kept = getattr(config, "modules_to_save", None) or []
        if kept or self.head:
            config.modules_to_save = sorted({*kept, *self.head})  # type: ignore[attr-defined]
        return config


def _head(model: PreTrainedModel, kind: Kind, loading: dict[str, Any]) -> tuple[str, ...]:
    """Names of the modules that are new to the checkpoint, or that do another task there.

    Raises:
        ConfigError: The checkpoint lacks weights, and the task adds no head that could be them.
    """
    new = set(loading["missing_keys"]) | {key for key, *_ in loading["mismatched_keys"]}
    if not kind.has_new_head:
        if new:
            raise ConfigError(
                f"Expected a checkpoint with all weights for {kind.name}, {model.name_or_path} "
                f"lacks {sorted(new)[:3]}."
            )
        return ()
    if not new:  # it has such a head already, for another task
        names = [name for name, _ in model.named_parameters()]
        new = {name for name in names if not name.startswith(f"{model.base_model_prefix}.")}
    return tuple(sorted({_module_of(key) for key in new}))


def _module_of(key: str) -> str:
    """Returns the module of a weight, or the one around it that PEFT saves as a whole."""
    parts = key.split(".")
    for depth, part in enumerate(parts, start=1):
        if part in PEFT_HEADS:
            return ".".join(parts[:depth])
    return ".".join(parts[:-1])


def _make_padding(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Lets the end token pad where a tokenizer has no padding token, as decoders' often have none.

    What is padded is masked and not learned, so that it matters to nothing which token pads; and
    heads for classification find the end of a text by it.
    """
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        logger.info("%s has no padding token; its end token pads", model.name_or_path)
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is not None:
        for config in (model.config, model.config.get_text_config()):
            if config.pad_token_id is None:
                config.pad_token_id = tokenizer.pad_token_id


def _num_positions(model: PreTrainedModel) -> int:
    """Returns how many tokens a model was made for; a large number where there is no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        # RoBERTa and its like count positions from behind the padding token's
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            if module.padding_idx is not None:
                limit = module.num_embeddings - module.padding_idx - 1
    return int(limit) if limit > 0 else UNLIMITED


@contextmanager
def _model_errors(name: str, purpose: str = "training") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(
            "Expected a local folder or Hub id of a model that transformers can load for "
            f"{purpose}, got {name!r}: {' '.join(str(error).split())}"
        ) from error
