"""A question and several choices, of which one is right.

The model reads the question with each choice and gives each a number; the numbers of one question
compete in a softmax. That is what transformers' classes for multiple choice compute, with the head
for sequence classification, which decoders have as well and PEFT saves under a type of its own.

Imports `errors`, `classification`, `kind`, `metric`, `split` and `table`; imported by
`kinds`.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from ..errors import TaskError
from .classification import negative_log_likelihood, not_finite
from .kind import Batch, Example, Kind, check_max_length, text_rows
from .metric import Evaluation, Metric
from .split import Split
from .table import Table

__all__ = ["MultipleChoice"]


@final
@dataclass(frozen=True)
class MultipleChoice(Kind):
    """Which of several choices answers a question; ``label_names`` are the choices' columns.

    A label is the number of the right choice, from 0.
    """

    name: ClassVar[str] = "multiple-choice"
    task_type: ClassVar[str] = "SEQ_CLS"
    model_class: ClassVar[Any] = AutoModelForSequenceClassification
    measures: ClassVar[tuple[str, ...]] = ("accuracy",)
    text_columns: ClassVar[tuple[str, ...]] = ("question", "choice1", "choice2")

    @classmethod
    def check_columns(cls, text_columns: Sequence[str]) -> None:
        if len(text_columns) < 3:
            raise TaskError(
                "expected the column of the question and those of at least two choices as text "
                f"columns, got {list(text_columns)}"
            )

    @classmethod
    def read(
        cls,
        table: Table,
        text_columns: tuple[str, ...],
        label_column: str,
        *,
        names: tuple[str, ...] = (),
    ) -> tuple[Self, Callable[[Table], Split]]:
        """Reads labels that count the choices from 0, or that are the text of the right one."""
        cls.check_columns(text_columns)
        kind = cls(text_columns[1:])

        def split(other: Table) -> Split:
            rows = text_rows(other, text_columns)
            return Split(rows, _answers(other, rows, label_column))

        return kind, split

    @property
    def model_options(self) -> dict[str, Any]:
        return {"num_labels": 1}

    def facts(self) -> dict[str, Any]:
        return {"label_names": list(self.label_names), "num_choices": len(self.label_names)}

    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        is_id = isinstance(label, int | np.integer) and not isinstance(label, bool)
        if is_id and 0 <= label < len(texts) - 1:
            return None
        return f"the number of a choice from 0 to {len(texts) - 2}"

    def group(self, texts: tuple[str, ...]) -> Hashable:
        return texts[0]

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        """Returns for each question its tokens with each of the choices, as a list of each."""
        special = tokenizer.num_special_tokens_to_add(pair=True)
        check_max_length(tokenizer, max_length, fewest=special + 2)
        pairs = [(texts[0], choice) for texts in split.texts for choice in texts[1:]]
        questions, choices = map(list, zip(*pairs, strict=True))
        encoded = tokenizer(questions, choices, truncation=True, max_length=max_length)
        width = len(self.label_names)
        return [
            {
                **{
                    name: rows[number * width : (number + 1) * width]
                    for name, rows in encoded.items()
                },
                "labels": label,
            }
            for number, label in enumerate(split.labels)
        ]

    def length(self, example: Example) -> int:
        return max(map(len, example["input_ids"]))

    def collate(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
        """Returns a row for each choice of each question, and a label for each question."""
        names = [name for name in examples[0] if name != "labels"]
        rows = [
            dict(zip(names, values, strict=True))
            for example in examples
            for values in zip(*(example[name] for name in names), strict=True)
        ]
        labels = torch.tensor([example["labels"] for example in examples])
        return {**DataCollatorWithPadding(tokenizer)(rows), "labels": labels}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self._logits(model, batch), batch["labels"])

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        return list(self._logits(model, batch).cpu().numpy())

    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        logits = np.asarray(outputs, dtype=np.float64)
        if logits.shape != (len(labels), len(self.label_names)):
            raise TaskError(
                f"expected logits of shape {(len(labels), len(self.label_names))} (questions x "
                f"choices), got {logits.shape}"
            )
        if not np.isfinite(logits).all():
            return not_finite(metric)
        evaluation = metric.evaluate(predictions=logits.argmax(axis=1), references=labels)
        return replace(evaluation, loss=negative_log_likelihood(logits, np.asarray(labels)))

    def constant(self, train: Split, split: Split) -> Any:
        """Returns log frequencies of the places at which the right choice stands."""
        counts = Counter(train.labels)
        shares = np.array([counts[i] + 1 for i in range(len(self.label_names))], dtype=float)
        return np.tile(np.log(shares / shares.sum()), (len(split), 1))

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits: Tensor = model(**inputs).logits
        return logits.float().view(-1, len(self.label_names))


def _answers(table: Table, rows: Sequence[tuple[str, ...]], column: str) -> tuple[int, ...]:
    values = [value.strip() if isinstance(value, str) else value for value in table.column(column)]
    numbers = {str(i): i for i in range(len(rows[0]) - 1)}
    # by number if all are, since choices may be numbers too
    if all(str(value) in numbers for value in values):
        return tuple(numbers[str(value)] for value in values)
    for row, (texts, value) in enumerate(zip(rows, values, strict=True)):
        if texts[1:].count(value) != 1:
            raise TaskError(
                f"{table.source}, example {row}: expected in {column!r} the number of the right "
                f"choice, from 0 to {len(texts) - 2}, or its text, got {value!r:.80}"
            )
    return tuple(texts[1:].index(value) for texts, value in zip(rows, values, strict=True))
