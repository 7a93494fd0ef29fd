"""The kind of a task: what it asks of a model, from the rows of a table to the score.

Whatever differs between classifying texts, tagging words and writing answers is in a `Kind`;
loading, training and baselines ask it and know no kind by name. A kind is a final class, and
`kinds` lists them.

Imports `errors`, `metric`, `split` and `table`; imported by the kinds, `task` and `loading`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import TaskError
from .metric import Evaluation, Metric
from .split import Split
from .table import Table

__all__ = ["Batch", "Example", "Kind", "check_max_length", "text_rows"]

# What a model takes of one example: lists without padding, and ``labels``.
Example = dict[str, Any]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Kind(ABC):
    """What a task asks of a model.

    Attributes:
        label_names: Class names in the order of their ids; empty where there are no classes.
    """

    label_names: tuple[str, ...] = ()

    # Its name on the command line and in the facts of a run.
    name: ClassVar[str]
    # PEFT's name of what the model does, such as ``SEQ_CLS``.
    task_type: ClassVar[str]
    # The class of transformers that loads its model.
    model_class: ClassVar[Any]
    # Measures that its metric may have, the usual one first.
    measures: ClassVar[tuple[str, ...]]
    # Columns of a file where none are named.
    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    label_column: ClassVar[str] = "label"
    # Whether checkpoints lack the head, so that it is drawn and trained with every method.
    has_new_head: ClassVar[bool] = True
    # Whether the model gives scores over its whole vocabulary, which limits a batch.
    writes_text: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(
        cls,
        table: Table,
        text_columns: tuple[str, ...],
        label_column: str,
        *,
        names: tuple[str, ...] = (),
    ) -> tuple[Self, Callable[[Table], Split]]:
        """Returns the kind that a training table shows, and what makes splits of such tables.

        Args:
            table: The training table.
            text_columns: Names of the columns with texts.
            label_column: Name of the column with labels.
            names: Class names in the order of ids, where they are known.

        Raises:
            TaskError: If a column, text or label is missing or unfit; so may the second result.
        """

    @classmethod
    @abstractmethod
    def check_columns(cls, text_columns: Sequence[str]) -> None:
        """Raises a `TaskError` unless there are as many text columns as the kind takes."""

    def check(self, split: Split, where: str) -> None:
        """Raises a `TaskError` if labels or texts are not of this kind."""
        for row, (texts, label) in enumerate(zip(split.texts, split.labels, strict=True)):
            expected = self.complaint(texts, label)
            if expected is not None:
                raise TaskError(f"{where}, example {row}: expected {expected}, got {label!r:.80}")

    @abstractmethod
    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        """Returns what the label of an example should have been; None if it is right."""

    @property
    def default_measures(self) -> tuple[str, ...]:
        """Measures where none are named."""
        return self.measures[:1]

    @property
    def tokenizer_options(self) -> dict[str, Any]:
        """Arguments with which `AutoTokenizer` loads a fitting tokenizer."""
        return {}

    @property
    def model_options(self) -> dict[str, Any]:
        """Arguments with which `from_pretrained` builds a fitting model."""
        return {}

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises a `ConfigError` if a model that could be loaded is of no use."""
        return None

    def facts(self) -> dict[str, Any]:
        """Returns JSON-compatible facts that tell it from others of its name."""
        return {"label_names": list(self.label_names), "num_choices": 1}

    def stratum(self, label: Any) -> int:
        """Returns a class whose share shall be the same in every split."""
        return 0

    def group(self, texts: tuple[str, ...]) -> Hashable:
        """Returns what must not be on both sides of a division."""
        return texts

    @abstractmethod
    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        """Returns what the model takes of each example, without padding.

        Raises:
            TaskError: If the tokenizer cannot serve the kind or that length.
        """

    def labels(self, split: Split, examples: Sequence[Example]) -> Sequence[Any]:
        """Returns what `evaluate` compares each of the tokenised examples of a split with."""
        return split.labels

    def length(self, example: Example) -> int:
        """Returns the tokens that an example costs."""
        return len(example["input_ids"])

    def collate(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
        """Returns a padded batch, on the CPU."""
        return dict(DataCollatorWithPadding(tokenizer)(list(examples)))

    def num_terms(self, examples: Sequence[Example]) -> int:
        """Returns over how many terms the loss of these examples is a mean."""
        return len(examples)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the mean loss of a batch, which training lowers."""
        loss: Tensor = model(**batch).loss
        return loss

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        """Returns for each example of a batch what `evaluate` takes of it, on the CPU."""

    @abstractmethod
    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        """Returns the score and loss of what `predict` gave for a whole split.

        Raises:
            TaskError: If the outputs do not have the form that labels ask for.
        """

    @abstractmethod
    def constant(self, train: Split, split: Split) -> Any:
        """Returns the outputs of the best constant of a training split; None if there is none."""


def text_rows(table: Table, columns: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Returns the texts of some columns, row by row.

    Raises:
        TaskError: If there is no such column, or something else in it than text.
    """
    rows = tuple(zip(*(table.column(name) for name in columns), strict=True))
    for number, values in enumerate(rows):
        if not all(isinstance(value, str) for value in values):
            raise TaskError(
                f"{table.source}, example {number}: expected text in {list(columns)}, got "
                f"{list(values)}"
            )
    return rows


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int, *, fewest: int) -> None:
    """Raises a `TaskError` if a tokenizer cannot pad, or cannot serve a length.

    Args:
        tokenizer: The tokenizer.
        max_length: Tokens kept of an example.
        fewest: Tokens below which nothing is left of an example.
    """
    most = tokenizer.model_max_length
    if not fewest <= max_length <= most:
        raise TaskError(
            f"max_length must lie between {fewest} (special tokens and one token a text) and "
            f"{most} (the limit of tokenizer and model), got {max_length}"
        )
    if tokenizer.pad_token is None:
        raise TaskError(
            "the tokenizer has no padding token, which batches of unequal lengths need; set "
            "tokenizer.pad_token (and model.config.pad_token_id), often to the end-of-text token"
        )
