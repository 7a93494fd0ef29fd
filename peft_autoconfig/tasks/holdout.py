"""What is held out of a training set, and how it is made smaller: by seed alone, by class share.

Rows with one key (the same text, or the choices of one question) always stay on one side, so that
no text that trials are compared on has been trained on.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..errors import TaskError
from .kind import Kind
from .split import Split

__all__ = ["Division", "hold_out", "keep", "without"]

logger = logging.getLogger(__name__)

Groups = list[list[int]]


@dataclass(frozen=True)
class Division:
    """How a training set becomes what trials train on and what they are compared on.

    Attributes:
        dev_fraction: Share to compare trials on (0, 1).
        max_dev_examples: Most examples of that, or None.
        max_train_examples: Most examples to train on, or None.
        seed: Seed of every choice.
    """

    dev_fraction: float
    max_dev_examples: int | None
    max_train_examples: int | None
    seed: int

    def __post_init__(self) -> None:
        for name in ("max_dev_examples", "max_train_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TaskError(f"{name} must be at least 1, or None for all, got {value}")

    def divide(self, train: Split, test: Split | None, *, kind: Kind) -> tuple[Split, Split, Split]:
        """Returns the train, search-dev and reporting splits, which share no text.

        Args:
            train: All training examples.
            test: The reporting split; None holds it out of the training examples too.
            kind: Kind of the task.

        Raises:
            TaskError: If nothing is left to train on, or a split is impossible.
        """
        if test is None:
            train, test = self._hold_out(train, self.seed + 1, kind)
        clean = without(train, test)
        if len(clean) < len(train):
            logger.info(
                "left %d training examples out: their texts are in the reporting split",
                len(train) - len(clean),
            )
        if not len(clean):
            raise TaskError(
                f"all {len(train)} training texts are in the reporting split too, so nothing is "
                "left to train on; was one file given for both?"
            )
        rest, dev = self._hold_out(clean, self.seed, kind)
        return self.keep(rest, kind), dev, test

    def keep(self, train: Split, kind: Kind) -> Split:
        """Returns what is trained on of the examples at hand."""
        return keep(train, max_examples=self.max_train_examples, seed=self.seed, kind=kind)

    def _hold_out(self, split: Split, seed: int, kind: Kind) -> tuple[Split, Split]:
        return hold_out(
            split,
            fraction=self.dev_fraction,
            max_examples=self.max_dev_examples,
            seed=seed,
            kind=kind,
        )


def hold_out(
    split: Split, *, fraction: float, max_examples: int | None, seed: int, kind: Kind
) -> tuple[Split, Split]:
    """Returns what stays and what is held out, the latter with the class shares of the whole.

    Args:
        split: The examples to divide.
        fraction: Share to hold out (0, 1).
        max_examples: Most examples to hold out, or None.
        seed: Seed of the choice.
        kind: Says which rows belong together, and of which labels the shares are kept.

    Raises:
        TaskError: If the share is impossible, or a class has too few different texts to stand on
            both sides.
    """
    if not 0 < fraction < 1:
        raise TaskError(f"the held-out fraction must lie between 0 and 1, got {fraction}")
    total = round(fraction * len(split))
    total = total if max_examples is None else min(total, max_examples)
    strata = _strata(split, kind)
    for label, groups in strata.items():
        if len(groups) < 2:
            raise TaskError(
                f"cannot hold examples out: label {label!r} has 1 text in {len(split)} training "
                "examples, expected at least 2 different ones; add examples of it or drop it"
            )
    quotas = _shares([sum(map(len, groups)) for groups in strata.values()], total)
    held: set[int] = set()
    for (label, groups), quota in zip(strata.items(), quotas, strict=True):
        random.Random(f"{seed}/{label}").shuffle(groups)
        held.update(_first(groups[:-1], quota))
    rows = range(len(split))
    return split.take([row for row in rows if row not in held]), split.take(sorted(held))


def keep(split: Split, *, max_examples: int | None, seed: int, kind: Kind) -> Split:
    """Returns at most so many examples with the class shares of the whole, one a class at least.

    A smaller choice with the same seed is contained in a larger one, up to rounding.

    Raises:
        TaskError: If not every class gets an example.
    """
    if max_examples is None or max_examples >= len(split):
        return split
    strata = _strata(split, kind, unique=False)
    if max_examples < len(strata):
        raise TaskError(
            f"max_train_examples must be at least {len(strata)}, one a class, got {max_examples}"
        )
    counts = _shares([len(groups) for groups in strata.values()], max_examples)
    kept: list[int] = []
    for (label, groups), count in zip(strata.items(), counts, strict=True):
        random.Random(f"{seed}/{label}").shuffle(groups)
        kept.extend(row for group in groups[:count] for row in group)
    return split.take(sorted(kept))


def without(split: Split, other: Split) -> Split:
    """Returns the split less every example whose texts occur in the other one."""
    known = set(other.texts)
    return split.take([row for row, texts in enumerate(split.texts) if texts not in known])


def _strata(split: Split, kind: Kind, unique: bool = True) -> dict[int, Groups]:
    """Row numbers grouped by what must stay together, by the stratum of a group's first row."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, texts in enumerate(split.texts):
        groups[kind.group(texts) if unique else row].append(row)
    strata: dict[int, Groups] = defaultdict(list)
    for rows in groups.values():
        strata[kind.stratum(split.labels[rows[0]])].append(rows)
    return dict(sorted(strata.items()))


def _first(groups: Groups, quota: int) -> list[int]:
    """Rows of the first groups, whole, as many as the quota allows; at least those of one."""
    rows = list(groups[0])
    for group in groups[1:]:
        if len(rows) + len(group) <= quota:
            rows.extend(group)
    return rows


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers of sum `total` in proportion to the sizes (largest remainder), at least 1."""
    exact = [size * total / sum(sizes) for size in sizes]
    counts = [max(1, int(value)) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - exact[i])
    while sum(counts) < total:
        counts[by_remainder.pop(0)] += 1
    while sum(counts) > total and max(counts) > 1:
        counts[counts.index(max(counts))] -= 1
    return counts
