"""Examples of one split, before any tokenizer has seen them.

Imports nothing of ours; imported by every kind of task.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """Examples of one split, in a fixed order.

    Attributes:
        texts: Per example its texts, in the order of the task's text columns; the words of a
            sentence where words are labelled.
        labels: Per example what its `Kind` says: a class id, a real value, a class id for each
            word, or the text to be written.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int]) -> "Split":
        """Returns the split of these row numbers, in their order."""
        return Split(
            tuple(self.texts[row] for row in rows), tuple(self.labels[row] for row in rows)
        )

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that change with any text, label or order."""
        content = json.dumps([self.texts, self.labels], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]
