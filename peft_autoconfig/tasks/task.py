"""A task: examples in three splits, what they ask of a model, and how its answers are scored.

The first station of the way: `load_task` makes the value, training tokenises its splits and asks
it for a score. Trials train on `train` and are compared on `dev`, which is held out of the
training set; `test` is the data set's own validation split, opened once at the end to report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import TaskError
from .kind import Example, Kind
from .metric import Evaluation, Metric
from .split import Split

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """One data set made ready for a search.

    Attributes:
        name: Short name, such as ``rte``.
        source: Where the data came from, for people.
        text_columns: Names of its text columns.
        kind: What it asks of a model.
        metric: What is computed from predictions.
        train: What trials train on.
        dev: What trials are compared on; no text of it is in `train`.
        test: The data set's own validation split, to report once; no text of it is in the others.
        seed: Seed of the splitting.

    Raises:
        TaskError: If the parts do not fit each other.
    """

    name: str
    source: str
    text_columns: tuple[str, ...]
    kind: Kind
    metric: Metric
    train: Split
    dev: Split
    test: Split
    seed: int = 0

    def __post_init__(self) -> None:
        self.kind.check_columns(self.text_columns)
        if not set(self.metric.measures) <= set(self.kind.measures):
            raise TaskError(
                f"metric {self.metric.name} does not fit a task of {self.kind.name}; its measures "
                f"are {list(self.kind.measures)}"
            )
        if "f1" in self.metric.measures and len(self.label_names) != 2:
            raise TaskError(
                f"f1 is for two classes, this task has {len(self.label_names)}; use macro_f1"
            )
        for name in ("train", "dev", "test"):
            split: Split = getattr(self, name)
            if not len(split):
                raise TaskError(f"task {self.name}: the {name} split is empty")
            self.kind.check(split, f"task {self.name}, {name} split")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of their ids; empty where there are no classes."""
        return self.kind.label_names

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 128
    ) -> list[Example]:
        """Returns what a model takes of each example, as lists without padding, and ``labels``.

        Padding belongs to the batch: see `Kind.collate`.

        Args:
            split: One of the task's splits.
            tokenizer: Any tokenizer that can pad.
            max_length: Tokens kept of an example [more than the special tokens, at most what the
                tokenizer says its model takes].

        Raises:
            TaskError: If the tokenizer cannot serve that length or cannot pad.
        """
        return self.kind.tokenize(split, tokenizer, max_length=max_length)

    def evaluate(self, outputs: Any, labels: Sequence[Any]) -> Evaluation:
        """Returns the score and the loss of a model's outputs.

        Args:
            outputs: What `Kind.predict` gave of a split, in its order; logits ``n x classes`` in
                a classification.
            labels: The labels of that split.

        Raises:
            TaskError: If the shapes do not fit.
        """
        return self.kind.evaluate(outputs, labels, self.metric)

    def about(self) -> dict[str, Any]:
        """Returns JSON-compatible facts by which a run folder knows this task again."""
        splits = {"train": self.train, "dev": self.dev, "test": self.test}
        return {
            "name": self.name,
            "text_columns": list(self.text_columns),
            "kind": self.kind.name,
            **self.kind.facts(),
            "metric": self.metric.name,
            "seed": self.seed,
            "sizes": {name: len(split) for name, split in splits.items()},
            "digests": {name: split.digest() for name, split in splits.items()},
        }
