"""A task: texts with labels in three splits, and how a model's answers are scored.

The first station of the way: `load_task` makes the value, training tokenises its splits and asks
it for a score. Trials train on `train` and are compared on `dev`, which is held out of the
training set; `test` is the data set's own validation split, opened once at the end to report.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from ..errors import TaskError
from .metric import Evaluation, Metric

__all__ = ["Kind", "Split", "Task"]

Kind = Literal["classification", "regression"]
Example = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Examples of one split, in a fixed order.

    Attributes:
        texts: Per example its one or two texts.
        labels: Per example its class id, or its real value in a regression.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...] | tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int]) -> "Split":
        """Returns the split of these row numbers, in their order."""
        labels: Any = tuple(self.labels[row] for row in rows)
        return Split(tuple(self.texts[row] for row in rows), labels)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that change with any text, label or order."""
        content = json.dumps([self.texts, self.labels], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def tokenize(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 128
    ) -> list[Example]:
        """Returns per example what the model takes, as lists without padding, and ``labels``.

        The longer text of a pair is cut first. Padding belongs to the batch: pass the result on to
        a `transformers.DataCollatorWithPadding`.

        Args:
            tokenizer: Any tokenizer that can pad.
            max_length: Tokens kept of an example [more than the special tokens, at most what the
                tokenizer says its model takes].

        Raises:
            TaskError: If the tokenizer cannot serve that length or cannot pad.
        """
        _check_tokenizer(tokenizer, max_length, pair=len(self.texts[0]) == 2)
        columns = [list(column) for column in zip(*self.texts, strict=True)]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
        names = list(encoded.keys())
        return [
            {**dict(zip(names, values, strict=True)), "labels": label}
            for *values, label in zip(*encoded.values(), self.labels, strict=True)
        ]


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int, *, pair: bool) -> None:
    fewest = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    most = tokenizer.model_max_length
    if not fewest <= max_length <= most:
        raise TaskError(
            f"max_length must lie between {fewest} (special tokens and one token a text) and "
            f"{most} (this tokenizer's limit), got {max_length}"
        )
    if tokenizer.pad_token is None:
        raise TaskError(
            "the tokenizer has no padding token, which batches of unequal lengths need; set "
            "tokenizer.pad_token (and model.config.pad_token_id), often to the end-of-text token"
        )


@dataclass(frozen=True)
class Task:
    """One data set made ready for a search.

    Attributes:
        name: Short name, such as ``rte``.
        source: Where the data came from, for people.
        text_columns: Names of its one or two text columns.
        kind: ``classification`` or ``regression``.
        label_names: Class names in the order of their ids; empty in a regression.
        metric: What is computed from predictions.
        train: What trials train on.
        dev: What trials are compared on; no text of it is in `train`.
        test: The data set's own validation split, to report once; no text of it is in the others.
        seed: Seed of the splitting.
        num_choices: Answers that belong to one question and stand in consecutive rows, of which
            exactly one is right (COPA: 2); 1 when each row stands alone.

    Raises:
        TaskError: If the parts do not fit each other.
    """

    name: str
    source: str
    text_columns: tuple[str, ...]
    kind: Kind
    label_names: tuple[str, ...]
    metric: Metric
    train: Split
    dev: Split
    test: Split
    seed: int = 0
    num_choices: int = 1

    def __post_init__(self) -> None:
        if len(self.text_columns) not in (1, 2):
            raise TaskError(f"expected one or two text columns, got {list(self.text_columns)}")
        if self.metric.is_regression != (self.kind == "regression"):
            raise TaskError(f"metric {self.metric.name} does not fit a task of {self.kind}")
        if "f1" in self.metric.measures and len(self.label_names) != 2:
            raise TaskError(
                f"f1 is for two classes, this task has {len(self.label_names)}; use macro_f1"
            )
        for name in ("train", "dev", "test"):
            if not len(getattr(self, name)):
                raise TaskError(f"task {self.name}: the {name} split is empty")

    @property
    def num_labels(self) -> int:
        """Outputs of the task head: the number of classes, or 1 in a regression."""
        return len(self.label_names) or 1

    def model_options(self) -> dict[str, Any]:
        """Returns the arguments by which `from_pretrained` builds a fitting head."""
        if self.kind == "regression":
            return {"num_labels": 1, "problem_type": "regression"}
        return {
            "num_labels": self.num_labels,
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: index for index, name in enumerate(self.label_names)},
        }

    def evaluate(
        self, logits: npt.ArrayLike, labels: Sequence[int] | Sequence[float]
    ) -> Evaluation:
        """Returns the score and the loss of a model's outputs.

        Args:
            logits: Outputs, ``n x num_labels``, in the order of the split.
            labels: The ``n`` labels of that split.

        Raises:
            TaskError: If the shapes do not fit.
        """
        outputs = np.asarray(logits, dtype=np.float64)
        if outputs.shape != (len(labels), self.num_labels):
            raise TaskError(
                f"expected logits of shape {(len(labels), self.num_labels)} (examples x outputs), "
                f"got {outputs.shape}"
            )
        if not np.isfinite(outputs).all():
            zeros = dict.fromkeys(self.metric.measures, 0.0)
            return Evaluation(0.0, zeros, reason="some model outputs are not finite")
        references = np.asarray(labels)
        predictions, answers = self._answers(outputs, references)
        evaluation = self.metric.evaluate(predictions=predictions, references=answers)
        return replace(evaluation, loss=self._loss(outputs, references))

    def _answers(self, outputs: Any, references: Any) -> tuple[Any, Any]:
        """Predictions and right answers: values, class ids, or which choice of a question."""
        if self.kind == "regression":
            return outputs[:, 0], references
        if self.num_choices == 1:
            return outputs.argmax(axis=1), references
        margin = (outputs[:, 1] - outputs[:, 0]).reshape(-1, self.num_choices)
        return margin.argmax(axis=1), references.reshape(margin.shape).argmax(axis=1)

    def _loss(self, outputs: Any, references: Any) -> float:
        """Mean squared error, or mean negative log-likelihood in nats."""
        if self.kind == "regression":
            return float(np.mean((outputs[:, 0] - references) ** 2))
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        return float(np.mean(log_sums - shifted[np.arange(len(references)), references]))

    def about(self) -> dict[str, Any]:
        """Returns JSON-compatible facts by which a run folder knows this task again."""
        splits = {"train": self.train, "dev": self.dev, "test": self.test}
        return {
            "name": self.name,
            "text_columns": list(self.text_columns),
            "kind": self.kind,
            "label_names": list(self.label_names),
            "metric": self.metric.name,
            "num_choices": self.num_choices,
            "seed": self.seed,
            "sizes": {name: len(split) for name, split in splits.items()},
            "digests": {name: split.digest() for name, split in splits.items()},
        }
