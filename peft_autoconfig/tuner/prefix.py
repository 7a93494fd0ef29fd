"""The prefix of an attention: ``softmax(Q [P_k; K]^T) [P_v; V]``.

P_k and P_v are parameters, or, with a projection of width B, come from an embedding E of as many
rows as there are prefix positions: ``[P_k, P_v] = up(tanh(down(E)))`` with ``down: H -> B`` (Li and
Liang, 2021, arXiv 2101.00190, section 4.3). That is computed once per forward pass, not per row of
the batch, and can be folded into plain keys and values.

Imports `attention`, `off_interface`, `config`, `prefix_states`, `site`; imported by `model`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionSizes, attention_sizes, find_way, hide_view, show_view
from .config import AutoPEFTConfig, LayerSizes
from .off_interface import Attend
from .prefix_states import PrefixStates
from .site import Site

__all__ = ["AttentionSite"]

# As AdapterHub and PEFT draw flat prefixes; smaller ones learn more slowly (benchmarks/LOG.md)
PREFIX_STD = 1.0

FLAT = ("autopeft_prefix_key", "autopeft_prefix_value")
EMBEDDING = "autopeft_prefix_embedding"
PROJECTIONS = ("autopeft_prefix_projection_down", "autopeft_prefix_projection_up")


class AttentionSite(Site):
    """An attention with trained keys and values before its own; it may be without any.

    Args:
        base_layer: An attention; before it gets a prefix, `check_prefix` must have passed it.
        hidden_size: H; 0 if it is to be taken from the attention.
    """

    adapter_layer_names = (*FLAT, EMBEDDING, *PROJECTIONS)
    # an attention may have no prefix of an adapter, which PEFT must know all the same
    other_param_names = (*Site.other_param_names, "autopeft_length")

    def __init__(self, base_layer: nn.Module, hidden_size: int = 0) -> None:
        super().__init__(base_layer)
        for name in (*FLAT, EMBEDDING):
            setattr(self, name, nn.ParameterDict())
        for name in PROJECTIONS:
            setattr(self, name, nn.ModuleDict())
        self.autopeft_length: dict[str, int] = {}
        self.hidden_size = hidden_size
        self.sizes: AttentionSizes | None = None
        self.attend: Attend | None = None

    def update_layer(self, adapter_name: str, sizes: LayerSizes, config: AutoPEFTConfig) -> None:
        self.autopeft_length[adapter_name] = sizes.prefix
        if sizes.prefix:
            self.sizes = attention_sizes(self.base_layer, self.hidden_size)
            self.attend = find_way(self.base_layer)
            show_view(self.base_layer)
            self._add(adapter_name, sizes.prefix, config.prefix_projection_size)
        self._place(adapter_name, config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the attention gives with the prefixes at work before its keys."""
        if not len(self.autopeft_prefix_key) + len(self.autopeft_prefix_embedding):
            return self.base_layer(*args, **kwargs)
        # attentions do not agree on how to call the states, but they come first
        states = args[0] if args else next(iter(kwargs.values()))
        prefix = self._at_work(states.shape[0])
        if prefix is None:
            return self.base_layer(*args, **kwargs)
        assert self.attend is not None, "checked before the prefix was added"
        return self.attend(self.base_layer, prefix, args, kwargs)

    def fold(self, adapter_name: str) -> None:
        """Puts keys and values in the place of an adapter's projection; outputs stay the same."""
        if adapter_name not in self.autopeft_prefix_embedding:
            return
        trained = self.autopeft_prefix_embedding[adapter_name].requires_grad
        with torch.no_grad():
            states = self._states(adapter_name)
        for name, part in zip(FLAT, states, strict=True):
            getattr(self, name)[adapter_name] = nn.Parameter(part.contiguous(), trained)
        for name in (EMBEDDING, *PROJECTIONS):
            del getattr(self, name)[adapter_name]

    def restore(self) -> None:
        """Takes off the view of the attention's config as well."""
        super().restore()
        hide_view(self.base_layer)

    def _add(self, adapter_name: str, length: int, projection_size: int) -> None:
        assert self.sizes is not None
        heads, head_dim, hidden_size = self.sizes
        if not projection_size:
            for name in FLAT:
                states = torch.randn(heads, length, head_dim) * PREFIX_STD
                getattr(self, name)[adapter_name] = nn.Parameter(states)
            return
        embedding = torch.randn(length, hidden_size) * PREFIX_STD
        self.autopeft_prefix_embedding[adapter_name] = nn.Parameter(embedding)
        down = nn.Linear(hidden_size, projection_size)
        up = nn.Linear(projection_size, 2 * heads * head_dim)
        self.autopeft_prefix_projection_down[adapter_name] = down
        self.autopeft_prefix_projection_up[adapter_name] = up

    def _states(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """Returns an adapter's keys and values, each ``key_value_heads x length x head_dim``."""
        if adapter_name in self.autopeft_prefix_key:
            return (
                self.autopeft_prefix_key[adapter_name],
                self.autopeft_prefix_value[adapter_name],
            )
        assert self.sizes is not None
        down = self.autopeft_prefix_projection_down[adapter_name]
        up = self.autopeft_prefix_projection_up[adapter_name]
        states = up(torch.tanh(down(self.autopeft_prefix_embedding[adapter_name])))
        key, value = states.unflatten(1, (2, self.sizes.num_heads, -1)).permute(1, 2, 0, 3)
        return key, value

    def _at_work(self, num_rows: int) -> PrefixStates | None:
        held = [*self.autopeft_prefix_key, *self.autopeft_prefix_embedding]
        shares = self.shares(held, num_rows)
        if not shares:
            return None
        states = [self._states(name) for name, _ in shares]
        if self.batch_adapters is not None:
            return _row_by_row(states, [rows for _, rows in shares], num_rows)
        key, value = (torch.cat(parts, dim=1)[None] for parts in zip(*states, strict=True))
        return PrefixStates(key, value)


def _row_by_row(
    states: list[tuple[Tensor, Tensor]], rows: list[list[int] | None], num_rows: int
) -> PrefixStates:
    # One prefix after the other, the last with no position at all, and which of them a row has.
    # All in Python's numbers, so that nothing hangs on what a tensor holds and compiling goes on.
    lengths = [*(key.shape[1] for key, _ in states), 0]
    chosen = [len(states)] * num_rows
    for i, indices in enumerate(rows):
        for row in range(num_rows) if indices is None else indices:
            chosen[row] = i
    wanted = [lengths[i] for i in chosen]
    longest = max(wanted)
    none = torch.zeros_like(states[0][0][:, :0])
    device = none.device
    key, value = (
        torch.stack([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in (*parts, none)])
        for parts in zip(*states, strict=True)
    )
    visible = None
    if min(wanted) < longest:
        positions = torch.arange(longest, device=device)
        visible = positions < torch.tensor(wanted, device=device)[:, None]
    index = torch.tensor(chosen, device=device)
    return PrefixStates(key[index], value[index], visible)
