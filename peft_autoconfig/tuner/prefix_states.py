"""What a prefix brings to one attention: keys, values, and who may see them.

Imports nothing of ours; imported by `attention`, `off_interface` and `prefix`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PrefixStates"]


class PrefixStates(NamedTuple):
    """Keys and values of a prefix for the rows of a batch.

    Attributes:
        key: ``rows x key_value_heads x length x head_dim``; one row stands for all.
        value: The same shape.
        visible: Which positions a row of the batch may see, bool, ``batch x length``; None when
            all see all. Rows with prefixes of several lengths are padded to the longest.
    """

    key: Tensor
    value: Tensor
    visible: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of prefix positions, those of padding included."""
        return self.key.shape[2]

    def before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``key`` and ``value`` with those of the prefix in front.

        Args:
            key: ``batch x heads x keys x head_dim``. The heads are those of the prefix, or each
                of those repeated for the queries that share it (as in Falcon).
            value: The same shape.
        """
        return _join(self.key, key), _join(self.value, value)

    def columns_before(self, mask: Tensor) -> Tensor:
        """Returns a mask with columns for the prefix in front.

        Args:
            mask: Bool (true is visible) or additive, ``1 or batch x heads x queries x keys``.
        """
        shows = True if mask.dtype == torch.bool else 0.0
        if self.visible is None:
            return F.pad(mask, (self.length, 0), value=shows)
        columns = self.visible[:, None, None, :]
        if mask.dtype != torch.bool:
            # lower than what hides real tokens: where all of those are hidden, they are all seen
            shown = torch.zeros_like(columns, dtype=mask.dtype)
            columns = shown.masked_fill(~columns, float("-inf"))
        columns = columns.expand(-1, mask.shape[1], mask.shape[2], -1)
        return torch.cat([columns, mask.expand(columns.shape[0], -1, -1, -1)], dim=-1)


def _join(part: Tensor, states: Tensor) -> Tensor:
    repeats = states.shape[1] // part.shape[1]
    if repeats > 1:
        part = part.repeat_interleave(repeats, dim=1)
    part = part.to(states.dtype).expand(states.shape[0], -1, -1, -1)
    return torch.cat([part, states], dim=2)
