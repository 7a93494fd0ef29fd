"""One label for each text or pair of texts: a class, or a real value.

Imports `errors`, `kind`, `labels`, `metric`, `split` and `table`; imported by `kinds`.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from ..errors import TaskError
from .kind import Batch, Example, Kind, check_max_length, text_rows
from .labels import Labels
from .metric import CLASS_MEASURES, VALUE_MEASURES, Evaluation, Metric
from .split import Split
from .table import Table

__all__ = ["Classification", "Regression", "negative_log_likelihood", "not_finite"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _WholeText(Kind):
    """What classes and values of whole texts have in common."""

    task_type: ClassVar[str] = "SEQ_CLS"
    model_class: ClassVar[Any] = AutoModelForSequenceClassification

    @classmethod
    def check_columns(cls, text_columns: Sequence[str]) -> None:
        if len(text_columns) not in (1, 2):
            raise TaskError(f"expected one or two text columns, got {list(text_columns)}")

    @classmethod
    def read(
        cls,
        table: Table,
        text_columns: tuple[str, ...],
        label_column: str,
        *,
        names: tuple[str, ...] = (),
    ) -> tuple[Self, Callable[[Table], Split]]:
        cls.check_columns(text_columns)
        labels = Labels.of(table, label_column, is_value=cls is Regression, names=names)
        return cls(labels.names), lambda other: Split(
            text_rows(other, text_columns), labels.encode(other)
        )

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        """Returns the tokens of each text or pair; the longer text of a pair is cut first."""
        is_pair = len(split.texts[0]) == 2
        special = tokenizer.num_special_tokens_to_add(pair=is_pair)
        check_max_length(tokenizer, max_length, fewest=special + len(split.texts[0]))
        columns = [list(column) for column in zip(*split.texts, strict=True)]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
        names = list(encoded.keys())
        return [
            {**dict(zip(names, values, strict=True)), "labels": label}
            for *values, label in zip(*encoded.values(), split.labels, strict=True)
        ]

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return list(model(**inputs).logits.float().cpu().numpy())


@final
@dataclass(frozen=True)
class Classification(_WholeText):
    """One of several classes for each text or pair of texts."""

    name: ClassVar[str] = "classification"
    measures: ClassVar[tuple[str, ...]] = tuple(CLASS_MEASURES)

    @property
    def model_options(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.label_names),
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: index for index, name in enumerate(self.label_names)},
        }

    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        # bool is an int to Python, but says that classes were never numbered
        is_id = isinstance(label, int | np.integer) and not isinstance(label, bool)
        if is_id and 0 <= label < len(self.label_names):
            return None
        return f"a class id from 0 to {len(self.label_names) - 1}"

    def stratum(self, label: Any) -> int:
        return int(label)

    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        logits = _checked(outputs, (len(labels), len(self.label_names)))
        if not np.isfinite(logits).all():
            return not_finite(metric)
        evaluation = metric.evaluate(predictions=logits.argmax(axis=1), references=labels)
        return replace(evaluation, loss=negative_log_likelihood(logits, np.asarray(labels)))

    def constant(self, train: Split, split: Split) -> Array:
        """Returns the log frequencies of the classes, hence the majority class."""
        counts = Counter(train.labels)
        frequencies = np.array([counts[i] for i in range(len(self.label_names))], dtype=float)
        # a class that training lacks must not have an infinite loss
        constant = np.log((frequencies + 1) / (frequencies + 1).sum())
        return np.tile(constant, (len(split), 1))


@final
@dataclass(frozen=True)
class Regression(_WholeText):
    """A real value for each text or pair of texts."""

    name: ClassVar[str] = "regression"
    measures: ClassVar[tuple[str, ...]] = tuple(VALUE_MEASURES)

    @property
    def model_options(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    @property
    def default_measures(self) -> tuple[str, ...]:
        return self.measures

    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        is_number = isinstance(label, int | float | np.number) and not isinstance(label, bool)
        return None if is_number and math.isfinite(label) else "a finite number"

    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        values = _checked(outputs, (len(labels), 1))[:, 0]
        if not np.isfinite(values).all():
            return not_finite(metric)
        evaluation = metric.evaluate(predictions=values.tolist(), references=labels)
        return replace(evaluation, loss=float(np.mean((values - np.asarray(labels)) ** 2)))

    def constant(self, train: Split, split: Split) -> Array:
        """Returns the mean value."""
        return np.full((len(split), 1), np.mean(train.labels))


def negative_log_likelihood(logits: Array, ids: npt.NDArray[Any]) -> float:
    """Returns its mean in nats, of ``n x classes`` logits and ``n`` class ids."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sums - shifted[np.arange(len(ids)), ids]))


def not_finite(metric: Metric) -> Evaluation:
    """Returns the evaluation of a model that has diverged."""
    zeros = dict.fromkeys(metric.measures, 0.0)
    return Evaluation(0.0, zeros, reason="some model outputs are not finite")


def _checked(outputs: Any, shape: tuple[int, int]) -> Array:
    array = np.asarray(outputs, dtype=np.float64)
    if array.shape != shape:
        raise TaskError(f"expected logits of shape {shape} (examples x outputs), got {array.shape}")
    return array
