"""A class for each word of a sentence: names, parts of speech.

Imports `errors`, `classification`, `kind`, `labels`, `metric`, `split` and `table`; imported by
`kinds`.
"""

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import numpy as np
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
)

from ..errors import TaskError
from .classification import negative_log_likelihood, not_finite
from .kind import Batch, Example, Kind, check_max_length
from .labels import Labels
from .metric import TAG_MEASURES, Evaluation, Metric
from .split import Split
from .table import Table

__all__ = ["IGNORED", "TokenClassification"]

# The label that transformers' losses leave out.
IGNORED = -100

OUTSIDE = "O"


@final
@dataclass(frozen=True)
class TokenClassification(Kind):
    """A class for each word of a sentence.

    The texts of an example are its words, its label the class ids of them. The first token of a
    word stands for it. A word that ``max_length`` cuts off counts as outside of every span.
    """

    name: ClassVar[str] = "token-classification"
    task_type: ClassVar[str] = "TOKEN_CLS"
    model_class: ClassVar[Any] = AutoModelForTokenClassification
    measures: ClassVar[tuple[str, ...]] = tuple(TAG_MEASURES)
    text_columns: ClassVar[tuple[str, ...]] = ("tokens",)
    label_column: ClassVar[str] = "tags"

    @classmethod
    def check_columns(cls, text_columns: Sequence[str]) -> None:
        if len(text_columns) != 1:
            raise TaskError(f"expected one column with lists of words, got {list(text_columns)}")

    @classmethod
    def read(
        cls,
        table: Table,
        text_columns: tuple[str, ...],
        label_column: str,
        *,
        names: tuple[str, ...] = (),
    ) -> tuple[Self, Callable[[Table], Split]]:
        """Reads columns of lists, in CSV as ``["a", "b"]`` or with blanks between."""
        cls.check_columns(text_columns)
        labels = Labels.of(_flat(table, label_column), label_column, names=names)

        def split(other: Table) -> Split:
            words = [tuple(map(str, entries)) for entries in _lists(other, text_columns[0])]
            ids = iter(labels.encode(_flat(other, label_column)))
            tags = [tuple(next(ids) for _ in tags) for tags in _lists(other, label_column)]
            return Split(tuple(words), tuple(tags))

        return cls(labels.names), split

    @property
    def default_measures(self) -> tuple[str, ...]:
        """Span F1 if tags say where a span begins, else accuracy."""
        has_spans = any(name.startswith(("B-", "I-")) for name in self.label_names)
        return ("span_f1",) if has_spans else ("token_accuracy",)

    @property
    def tokenizer_options(self) -> dict[str, Any]:
        # byte-level tokenizers take words one by one only so
        return {"add_prefix_space": True}

    @property
    def model_options(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.label_names),
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: index for index, name in enumerate(self.label_names)},
        }

    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        if not texts:
            return "at least one word"
        ids = range(len(self.label_names))
        if (
            isinstance(label, Sequence)
            and len(label) == len(texts)
            and all(i in ids for i in label)
        ):
            return None
        return f"{len(texts)} class ids from 0 to {len(ids) - 1}, one for each word"

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        """Returns the tokens of each sentence, labelled at the first token of each word."""
        if not tokenizer.is_fast:
            raise TaskError(
                f"expected a fast tokenizer, which knows what word a token is of, got "
                f"{type(tokenizer).__name__}"
            )
        special = tokenizer.num_special_tokens_to_add(pair=False)
        check_max_length(tokenizer, max_length, fewest=special + 1)
        words = [[_visible(word, tokenizer) for word in texts] for texts in split.texts]
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
        return [
            {
                **{name: values[row] for name, values in encoded.items()},
                "labels": _at_first_tokens(encoded.word_ids(row), label),
            }
            for row, label in enumerate(split.labels)
        ]

    def collate(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
        return dict(DataCollatorForTokenClassification(tokenizer)(list(examples)))

    def num_terms(self, examples: Sequence[Example]) -> int:
        return sum(label != IGNORED for example in examples for label in example["labels"])

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        """Returns for each sentence the logits ``words x classes`` of the words that were kept."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float().cpu().numpy()
        is_word = (batch["labels"] != IGNORED).cpu().numpy()
        return [rows[chosen] for rows, chosen in zip(logits, is_word, strict=True)]

    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        self._check_shapes(outputs, labels)
        logits = np.concatenate([np.asarray(rows, dtype=np.float64) for rows in outputs])
        if not np.isfinite(logits).all():
            return not_finite(metric)
        predictions, kept = [], []
        for rows, ids in zip(outputs, labels, strict=True):
            tags = [self.label_names[i] for i in np.argmax(rows, axis=1)]
            predictions.append(tags + [OUTSIDE] * (len(ids) - len(tags)))
            kept += ids[: len(tags)]
        references = [[self.label_names[i] for i in ids] for ids in labels]
        evaluation = metric.evaluate(predictions=predictions, references=references)
        return replace(evaluation, loss=negative_log_likelihood(logits, np.asarray(kept)))

    def constant(self, train: Split, split: Split) -> Any:
        """Returns the log frequencies of the classes for every word."""
        counts = Counter(label for ids in train.labels for label in ids)
        shares = np.array([counts[i] + 1 for i in range(len(self.label_names))], dtype=float)
        return [np.tile(np.log(shares / shares.sum()), (len(ids), 1)) for ids in split.labels]

    def _check_shapes(self, outputs: Any, labels: Sequence[Any]) -> None:
        width = len(self.label_names)
        shapes = [np.shape(rows) for rows in outputs]
        if len(shapes) != len(labels) or not all(
            len(shape) == 2 and shape[0] <= len(ids) and shape[1] == width
            for shape, ids in zip(shapes, labels, strict=True)
        ):
            raise TaskError(
                f"expected for each of {len(labels)} sentences logits of shape (words, {width}), "
                f"got {len(shapes)} of shapes {shapes[:3]}..."
            )


def _at_first_tokens(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """The tag of a word at its first token, and what losses ignore at all others."""
    labels, last = [], None
    for word in word_ids:
        labels.append(IGNORED if word is None or word == last else tags[word])
        last = word
    return labels


def _visible(word: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A word that gives at least one token, as words of control characters do not."""
    if word.isascii() and word.isprintable() and word.strip():
        return word
    if tokenizer(word, add_special_tokens=False)["input_ids"]:
        return word
    if tokenizer.unk_token is None:
        raise TaskError(f"the tokenizer makes no token of the word {word!r}, and has none for that")
    return str(tokenizer.unk_token)


def _lists(table: Table, column: str) -> list[list[Any]]:
    lists = []
    for row, value in enumerate(table.column(column)):
        entries = _parsed(value) if isinstance(value, str) else value
        if not isinstance(entries, list | tuple):
            raise TaskError(
                f"{table.source}, example {row}: expected a list in {column!r}, got {value!r:.80}"
            )
        lists.append(list(entries))
    return lists


def _parsed(text: str) -> Any:
    if not text.strip().startswith("["):
        return text.split()
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return text


def _flat(table: Table, column: str) -> Table:
    """A table with a row for each word, so that labels are read as those of whole texts are."""
    tags = [tag for tags in _lists(table, column) for tag in tags]
    names = {column: table.class_names[column]} if column in table.class_names else {}
    return Table(f"{table.source}, counted by words", {column: tags}, names)
