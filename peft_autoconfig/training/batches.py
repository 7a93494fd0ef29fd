"""The batches of a training: which rows of the training set go into which step.

Imports nothing of ours; imported by `training`.
"""

from collections.abc import Iterator, Sequence

import torch

__all__ = ["batches_of"]

# batches that are formed together: long enough to find examples of like length, short enough to
# keep the order of training random
BATCHES_SORTED_TOGETHER = 25


def batches_of(lengths: Sequence[int], size: int, *, seed: int) -> Iterator[list[int]]:
    """Yields the rows of each batch for ever, like lengths together, in random order.

    Args:
        lengths: Tokens of each row.
        size: Rows of a batch; the last of each pass may have fewer.
        seed: Seed of the order, another one at every pass.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        shuffled = torch.randperm(len(lengths), generator=generator).tolist()
        for start in range(0, len(shuffled), size * BATCHES_SORTED_TOGETHER):
            chunk = shuffled[start : start + size * BATCHES_SORTED_TOGETHER]
            chunk.sort(key=lengths.__getitem__)
            batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            for i in torch.randperm(len(batches), generator=generator).tolist():
                yield batches[i]
