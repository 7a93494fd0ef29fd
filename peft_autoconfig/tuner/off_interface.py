"""A prefix for attentions that do not ask transformers for their attention function.

Two kinds are known, told by the signature and the methods of the module:

    Bloom, Falcon       update a cache between projecting and attending: they get a cache that
                          puts the prefix before what the real one returns
    DeBERTa, -v2, -v3   are computed here with the module's own projections and bias of relative
                          positions: that bias is for real tokens, the prefix has none

Bloom and Falcon with linear position biases treat the prefix as standing at the first token.

Imports `prefix_states`; imported by `attention`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .prefix_states import PrefixStates

__all__ = ["Attend", "find_way"]

# How to call an attention with a prefix: (attention, prefix, arguments, named arguments)
Attend = Callable[[nn.Module, PrefixStates, tuple[Any, ...], Mapping[str, Any]], Any]

CACHED_ARGUMENTS = {"hidden_states", "layer_past", "attention_mask", "alibi"}
DISENTANGLED_ARGUMENTS = [
    "self",
    "hidden_states",
    "attention_mask",
    "output_attentions",
    "query_states",
    "relative_pos",
    "rel_embeddings",
]


def find_way(attention: nn.Module) -> Attend | None:
    """Returns how to call ``attention`` with a prefix, None if it is of no known kind."""
    parameters = list(inspect.signature(type(attention).forward).parameters)
    if CACHED_ARGUMENTS <= set(parameters):
        return _attend_through_cache
    if parameters == DISENTANGLED_ARGUMENTS:
        if hasattr(attention, "disentangled_attention_bias"):
            return _attend_disentangled
        if hasattr(attention, "disentangled_att_bias"):
            return _attend_disentangled_v1
    return None


class _PrefixedCache:
    """A model's cache, or none, for one attention: it puts a prefix before what it returns.

    Args:
        cache: The model's own cache, which never holds the prefix.
        prefix: The prefix.
        num_keys: Number of keys to return behind it; None for all.
    """

    def __init__(self, cache: Any, prefix: PrefixStates, num_keys: int | None) -> None:
        self.cache, self.prefix, self.num_keys = cache, prefix, num_keys

    def update(
        self, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.cache is not None:
            key, value = self.cache.update(key, value, *args, **kwargs)
        return self.prefix.before(key[:, :, : self.num_keys], value[:, :, : self.num_keys])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)


def _attend_through_cache(
    attention: nn.Module, prefix: PrefixStates, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    hidden_states, mask = args[0], kwargs["attention_mask"]
    num_keys = None
    if mask is None:
        # Without a mask they rely on a flag that aligns queries and keys at the top left, so keys
        # beyond the queries, as of an empty static cache, are never seen.
        num_keys = hidden_states.shape[1]
        mask = torch.ones(num_keys, num_keys, dtype=torch.bool, device=hidden_states.device)
        mask = mask.tril()[None, None]
    alibi = kwargs["alibi"]
    changed = {
        "attention_mask": prefix.columns_before(mask),
        "alibi": None if alibi is None else F.pad(alibi, (prefix.length, 0)),
        "layer_past": _PrefixedCache(kwargs["layer_past"], prefix, num_keys),
    }
    return attention(*args, **{**kwargs, **changed})


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(DISENTANGLED_ARGUMENTS[1:], args, strict=False)), **kwargs}


def _attend_disentangled(
    attention: Any, prefix: PrefixStates, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor | None]:
    given = _given(args, kwargs)
    x, heads = given["hidden_states"], attention.num_attention_heads
    queried = given.get("query_states")
    query = attention.transpose_for_scores(
        attention.query_proj(x if queried is None else queried), heads
    )
    key = attention.transpose_for_scores(attention.key_proj(x), heads)
    value = attention.transpose_for_scores(attention.value_proj(x), heads)
    parts = 1 + len({"c2p", "p2c"}.intersection(attention.pos_att_type))
    scale = (query.shape[-1] * parts) ** 0.5
    scores = query @ key.transpose(-1, -2) / scale
    if attention.relative_attention:
        embeddings = attention.pos_dropout(given["rel_embeddings"])
        scores = scores + attention.disentangled_attention_bias(
            query, key, given.get("relative_pos"), embeddings, parts
        )
    query, value, scores = (t.unflatten(0, (-1, heads)) for t in (query, value, scores))
    return _finish_disentangled(attention, prefix, given, query / scale, scores, value)


def _attend_disentangled_v1(
    attention: Any, prefix: PrefixStates, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor | None]:
    given = _given(args, kwargs)
    if given.get("query_states") is not None:
        raise NotImplementedError("A prefix for DeBERTa with queries of their own (z_steps > 1).")
    states = attention.transpose_for_scores(attention.in_proj(given["hidden_states"]))
    query, key, value = states.chunk(3, dim=-1)
    query = query + attention.transpose_for_scores(attention.q_bias[None, None, :])
    value = value + attention.transpose_for_scores(attention.v_bias[None, None, :])
    parts = 1 + len(attention.pos_att_type)
    query = query / (query.shape[-1] * parts) ** 0.5
    scores = query @ key.transpose(-1, -2)
    relative = given.get("rel_embeddings"), given.get("relative_pos")
    if attention.relative_attention and None not in relative:
        embeddings = attention.pos_dropout(relative[0])
        scores = scores + attention.disentangled_att_bias(
            query, key, relative[1], embeddings, parts
        )
    return _finish_disentangled(attention, prefix, given, query, scores, value)


def _finish_disentangled(
    attention: Any,
    prefix: PrefixStates,
    given: Mapping[str, Any],
    query: Tensor,
    scores: Tensor,
    value: Tensor,
) -> tuple[Tensor, Tensor | None]:
    # query: scaled, batch x heads x queries x head_dim; scores: ... x queries x keys, no prefix
    before = query @ prefix.key.to(query.dtype).transpose(-1, -2)
    scores = torch.cat([before, scores], dim=-1)
    scores = _over_heads(getattr(attention, "head_logits_proj", None), scores)
    mask = F.pad(given["attention_mask"].bool(), (prefix.length, 0), value=True)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if prefix.visible is not None:
        visible = F.pad(prefix.visible, (0, value.shape[2]), value=True)[:, None, None, :]
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = attention.dropout(scores.softmax(dim=-1))
    weights = _over_heads(getattr(attention, "head_weights_proj", None), weights)
    values = torch.cat([prefix.value.to(value.dtype).expand(len(value), -1, -1, -1), value], dim=2)
    context = (weights @ values).transpose(1, 2).flatten(2)
    return context, weights if given.get("output_attentions") else None


def _over_heads(projection: nn.Module | None, states: Tensor) -> Tensor:
    # DeBERTa's "talking heads", an option of the first version
    if projection is None:
        return states
    mixed: Tensor = projection(states.movedim(1, -1))
    return mixed.movedim(-1, 1)
