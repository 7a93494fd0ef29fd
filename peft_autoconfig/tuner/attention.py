"""The attention function that lets a layer attend to a prefix, and the view that calls for it.

transformers looks an attention implementation up by the name in `config._attn_implementation`.
An attention module with a prefix gets a view of its config that names ours (`PrefixedConfig`);
ours puts the prefix before the keys and values and hands over to the implementation that the
real config names. So the prefix meets keys after rotary embedding and cache: real tokens keep
their positions, and the cache never holds the prefix.

Imports `errors`, `prefix_states`, `off_interface`; imported by `prefix`, `placement` and `plan`.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from textwrap import dedent
from typing import Any, NamedTuple, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import PlacementError
from .off_interface import Attend
from .off_interface import find_way as find_way_off_interface
from .prefix_states import PrefixStates

__all__ = [
    "AttentionSizes",
    "attention_sizes",
    "check_prefix",
    "find_way",
    "hide_view",
    "show_view",
    "uses_interface",
]

IMPLEMENTATION = "autopeft_prefix"
# the keyword that carries the prefix from the wrapped attention module to the function
PREFIX_ARGUMENT = "autopeft_prefix"
SUPPORTED = ("eager", "sdpa")

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class AttentionSizes(NamedTuple):
    """The sizes that a prefix must fit: key/value heads, size of each, and H."""

    num_heads: int
    head_dim: int
    hidden_size: int


class PrefixedConfig:
    """A view of a model's config that differs in the attention implementation alone.

    Args:
        config: The config.
        prefix: A prefix for the attention function, unless it is handed to it by keyword.
    """

    def __init__(self, config: Any, prefix: PrefixStates | None = None) -> None:
        object.__setattr__(self, "wrapped", config)
        object.__setattr__(self, "prefix", prefix)

    @property
    def _attn_implementation(self) -> str:
        return IMPLEMENTATION

    def __getattr__(self, name: str) -> Any:
        # while being copied or unpickled the view is empty, and would look itself up for ever
        if name in ("wrapped", "prefix") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)


def uses_interface(module: nn.Module) -> bool:
    """Returns whether ``module`` is an attention that asks transformers for its function."""
    forward = inspect.unwrap(type(module).forward)
    code = getattr(forward, "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def show_view(attention: nn.Module) -> None:
    """Makes an attention on transformers' interface ask for our function; others stay as is."""
    if uses_interface(attention) and not isinstance(attention.config, PrefixedConfig):
        attention.config = PrefixedConfig(attention.config)  # type: ignore[assignment]


def hide_view(attention: nn.Module) -> None:
    """Undoes `show_view`."""
    config = getattr(attention, "config", None)
    if isinstance(config, PrefixedConfig):
        attention.config = config.wrapped


def find_way(attention: nn.Module) -> Attend | None:
    """Returns how to call ``attention`` with a prefix, None if there is no way.

    One on transformers' interface must have a view of its config (`show_view`) by then.
    """
    if not uses_interface(attention):
        return find_way_off_interface(attention)
    return _attend_by_keyword if _passes_keywords_on(attention) else _attend_by_view


def check_prefix(attention: nn.Module) -> None:
    """Checks that ``attention``, wrapped by a site or not, can attend to a prefix.

    Raises:
        PlacementError: It does not ask transformers for its function and is of no other kind that
            we know, it is set to a function other than "eager" and "sdpa", or it does not tell its
            sizes.
    """
    if isinstance(attention, BaseTunerLayer):
        attention = attention.get_base_layer()
    if find_way(attention) is None:
        raise PlacementError(
            "A prefix needs an attention that goes through transformers' attention interface, "
            f"which {type(attention).__name__} does not; leave the prefix out and use the other "
            "parts."
        )
    _check_implementation(getattr(attention, "config", None))
    attention_sizes(attention)


def attention_sizes(attention: nn.Module, hidden_size: int = 0) -> AttentionSizes:
    """Returns the sizes that a prefix of ``attention`` must have.

    Args:
        attention: The attention.
        hidden_size: H; 0 takes the input size of the attention's first linear module for it.

    Raises:
        PlacementError: The attention does not tell them.
    """
    config = getattr(attention, "config", None)
    heads = _first_size(attention, "num_heads", "num_attention_heads", "n_heads")
    heads = heads or _first_size(config, "num_attention_heads", "num_heads")
    groups = _first_size(attention, "num_key_value_groups")
    key_value_heads = _first_size(attention, "num_key_value_heads", "num_kv_heads") or (
        heads // groups if heads and groups else heads
    )
    linear = next((m for m in attention.modules() if _first_size(m, "in_features", "nx")), None)
    hidden_size = hidden_size or _first_size(linear, "in_features", "nx") or 0
    head_dim = _first_size(
        attention, "head_dim", "attention_head_size", "head_size", "key_value_proj_dim"
    ) or (hidden_size and heads and hidden_size // heads)
    if not key_value_heads or not head_dim or not hidden_size:
        raise PlacementError(
            "Expected an attention that tells the number and the size of its heads, got "
            f"{type(attention).__name__}, for which a prefix cannot be sized; leave the prefix out "
            "and use the other parts."
        )
    return AttentionSizes(key_value_heads, head_dim, hidden_size)


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
        kwargs: Whatever else the model passes; the prefix under `PREFIX_ARGUMENT`.
    """
    config = module.config.wrapped  # type: ignore[union-attr]
    forward = _own_function(module, config)
    prefix = kwargs.pop(PREFIX_ARGUMENT, module.config.prefix)  # type: ignore[union-attr]
    if prefix is None:
        return forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None:
        is_sdpa = config._attn_implementation == "sdpa"  # type: ignore[union-attr]
        # Without a mask, sdpa masks by a flag that aligns queries and keys at the top left: with
        # a prefix in front it would hide real tokens and show the prefix alone.
        is_causal = is_sdpa and _is_causal(module, query, kwargs)
        if is_causal or prefix.visible is not None:
            attention_mask = _explicit_mask(query, key, is_causal=is_causal, is_bool=is_sdpa)
    if attention_mask is not None:
        attention_mask = prefix.columns_before(attention_mask)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (prefix.length, 0))
    key, value = prefix.before(key, value)
    return forward(module, query, key, value, attention_mask, **kwargs)


def _passes_keywords_on(attention: nn.Module) -> bool:
    # Whether the forward pass calls something, its attention function, with ``**kwargs``.
    try:
        source = inspect.getsource(inspect.unwrap(type(attention).forward))
    except OSError:
        return False
    calls = (n for n in ast.walk(ast.parse(dedent(source))) if isinstance(n, ast.Call))
    return any(keyword.arg is None for call in calls for keyword in call.keywords)


def _attend_by_keyword(
    attention: nn.Module, prefix: PrefixStates, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    return attention(*args, **{**kwargs, PREFIX_ARGUMENT: prefix})


def _attend_by_view(
    attention: nn.Module, prefix: PrefixStates, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    # Unlike a keyword, this is seen by every thread that runs the module meanwhile.
    config = attention.config.wrapped  # type: ignore[union-attr]
    attention.config = PrefixedConfig(config, prefix)  # type: ignore[assignment]
    try:
        return attention(*args, **kwargs)
    finally:
        attention.config = PrefixedConfig(config)  # type: ignore[assignment]


def _first_size(owner: Any, *names: str) -> int | None:
    values = (getattr(owner, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value), None)


def _check_implementation(config: Any) -> None:
    name = getattr(config, "_attn_implementation", None)
    if name not in (*SUPPORTED, IMPLEMENTATION, None):
        raise PlacementError(
            f"A prefix needs one of the attention implementations {SUPPORTED}, got {name!r}; "
            'load the model with attn_implementation="sdpa" or call '
            'model.set_attn_implementation("sdpa").'
        )


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


def _explicit_mask(query: Tensor, key: Tensor, *, is_causal: bool, is_bool: bool) -> Tensor:
    # There is no mask only where nothing is cached yet, so query i is at key i also when a static
    # cache has room for more keys than there are queries.
    mask = torch.ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
    if is_causal:
        mask = mask.tril()
    return mask if is_bool else torch.zeros_like(mask, dtype=query.dtype)


AttentionInterface.register(IMPLEMENTATION, attend_with_prefix)
