"""The attention function that lets a layer attend to a prefix, and the view that calls for it.

transformers looks an attention implementation up by the name in `config._attn_implementation`.
An attention module with a prefix gets a view of its config that names ours (`PrefixedConfig`);
ours puts the prefix before the keys and values and hands over to the implementation that the
real config names. So the prefix meets keys after rotary embedding and cache: real tokens keep
their positions, and the cache never holds the prefix.

Imports `errors`; imported by `prefix` and `placement`.
"""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import PlacementError

__all__ = ["PREFIX_ARGUMENT", "PrefixedConfig", "check_prefix", "uses_interface"]

IMPLEMENTATION = "autopeft_prefix"
# the keyword that carries (key, value) from the wrapped attention module to the function
PREFIX_ARGUMENT = "autopeft_prefix"
SUPPORTED = ("eager", "sdpa")

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class PrefixedConfig:
    """A view of a model's config that differs in the attention implementation alone."""

    def __init__(self, config: Any) -> None:
        object.__setattr__(self, "wrapped", config)

    @property
    def _attn_implementation(self) -> str:
        return IMPLEMENTATION

    def __getattr__(self, name: str) -> Any:
        # while being copied or unpickled the view is empty, and would look itself up for ever
        if name == "wrapped" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)


def uses_interface(module: nn.Module) -> bool:
    """Returns whether ``module`` is an attention that asks transformers for its function."""
    forward = inspect.unwrap(type(module).forward)
    code = getattr(forward, "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def check_prefix(attention: nn.Module) -> None:
    """Checks that ``attention``, wrapped by a site or not, can attend to a prefix.

    Raises:
        PlacementError: It does not ask transformers for its function, or it is set to a function
            other than "eager" and "sdpa".
    """
    if isinstance(attention, BaseTunerLayer):
        attention = attention.get_base_layer()
    if not uses_interface(attention):
        raise PlacementError(
            f"A prefix needs an attention that goes through transformers' attention interface, "
            f"which {type(attention).__name__} does not; leave the prefix out and use the other "
            "parts."
        )
    _check_implementation(attention.config)


def _check_implementation(config: Any) -> None:
    name = config._attn_implementation
    if name not in (*SUPPORTED, IMPLEMENTATION):
        raise PlacementError(
            f"A prefix needs one of the attention implementations {SUPPORTED}, got {name!r}; "
            'load the model with attn_implementation="sdpa" or call '
            'model.set_attn_implementation("sdpa").'
        )


def attend_with_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Returns what the model's own attention function gives with the prefix before the keys.

    Args:
        module: The attention module, whose config is a `PrefixedConfig`.
        query: ``batch x heads x queries x head_dim``.
        key: ``batch x key_value_heads x keys x head_dim``, from the cache and the input.
        value: The same shape.
        attention_mask: None, or bool or additive, ``... x queries x keys``.
        kwargs: Whatever else the model passes; the prefix, two tensors of ``key_value_heads x
            length x head_dim``, under `PREFIX_ARGUMENT`.
    """
    config = module.config.wrapped  # type: ignore[union-attr]
    forward = _own_function(module, config)
    prefix = kwargs.pop(PREFIX_ARGUMENT, None)
    if prefix is None:
        return forward(module, query, key, value, attention_mask, **kwargs)
    length = prefix[0].shape[1]
    relies_on_flag = config._attn_implementation == "sdpa" and attention_mask is None  # type: ignore[union-attr]
    if relies_on_flag and _is_causal(module, query, kwargs):
        # Without a mask, sdpa masks by a flag that aligns queries and keys at the top left: with
        # a prefix in front it would hide real tokens and show the prefix alone.
        attention_mask = _causal_mask(query.shape[2], key.shape[2], query.device)
    if attention_mask is not None:
        visible = True if attention_mask.dtype == torch.bool else 0.0
        attention_mask = F.pad(attention_mask, (length, 0), value=visible)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (length, 0))
    key, value = (_prepend(part, states) for part, states in zip(prefix, (key, value), strict=True))
    return forward(module, query, key, value, attention_mask, **kwargs)


def _prepend(prefix: Tensor, states: Tensor) -> Tensor:
    batch = prefix.to(states.dtype).expand(states.shape[0], *prefix.shape)
    return torch.cat([batch, states], dim=2)


def _own_function(module: nn.Module, config: Any) -> AttentionFunction:
    _check_implementation(config)
    if config._attn_implementation == "eager":
        function = inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
    else:
        function = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    return cast(AttentionFunction, function)


def _is_causal(module: nn.Module, query: Tensor, kwargs: dict[str, Any]) -> bool:
    is_causal = kwargs.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    return bool(is_causal) and query.shape[2] > 1


def _causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril(diagonal=keys - queries)[None, None]


AttentionInterface.register(IMPLEMENTATION, attend_with_prefix)
