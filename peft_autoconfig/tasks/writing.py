"""Texts that a model writes: any text, the completion of a prompt, the answer to a source.

The loss is the mean negative log-likelihood of the tokens that are to be written. An answer matches
exactly if greedy decoding would write it to its end token: that is so if and only if every token of
it is the likeliest one after the right ones before it, hence one pass tells, with no decoding.

Imports `errors`, `kind`, `metric`, `split`, `table` and `token_classification`; imported by
`kinds`.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import ConfigError, TaskError
from .kind import Batch, Example, Kind, check_max_length, text_rows
from .metric import Evaluation, Metric
from .split import Split
from .table import Table
from .token_classification import IGNORED

__all__ = ["Completion", "LanguageModelling", "SequenceToSequence"]

logger = logging.getLogger(__name__)

# Below that of any model: a score has to be finite where outputs are not.
WORST_LOG_LIKELIHOOD = -1000.0
# exp of more has no float
LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class _Writing(Kind):
    """What all texts that a model writes have in common; the label of an example is that text."""

    has_new_head: ClassVar[bool] = False
    writes_text: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("exact_match", "log_likelihood")

    @classmethod
    def check_columns(cls, text_columns: Sequence[str]) -> None:
        if len(text_columns) != 1:
            raise TaskError(f"expected one text column, got {list(text_columns)}")

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

        def split(other: Table) -> Split:
            answers = tuple(text for (text,) in text_rows(other, [label_column]))
            return Split(text_rows(other, text_columns), answers)

        return cls(), split

    def complaint(self, texts: tuple[str, ...], label: Any) -> str | None:
        return None if isinstance(label, str) and label else "a text to be written"

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        """Returns for each example its log-likelihood, its tokens, and how many were unlikely.

        A token is unlikely if another one is likelier in its place.
        """
        logits, labels = self._logits(model, batch)
        losses = nn.functional.cross_entropy(
            logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
        )
        is_written = labels != IGNORED
        unlikely = is_written & (logits.argmax(dim=-1) != labels)
        facts = [-losses.double().sum(1), is_written.sum(1), unlikely.sum(1)]
        return list(torch.stack([fact.double() for fact in facts], dim=1).cpu().numpy())

    @abstractmethod
    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits ``n x length x vocabulary``, and the labels ``n x length`` that they predict."""

    def evaluate(self, outputs: Any, labels: Sequence[Any], metric: Metric) -> Evaluation:
        facts = np.asarray(outputs, dtype=np.float64)
        if facts.ndim != 2 or facts.shape[1] != 3 or not len(facts):
            raise TaskError(f"expected three numbers for each example, got {facts.shape}")
        log_likelihood = facts[:, 0].sum() / facts[:, 1].sum()
        if not math.isfinite(log_likelihood):
            worst = {"exact_match": 0.0, "log_likelihood": WORST_LOG_LIKELIHOOD}
            values = {name: worst[name] for name in metric.measures}
            score = sum(values.values()) / len(values)
            return Evaluation(score, values, reason="some model outputs are not finite")
        values = {"log_likelihood": float(log_likelihood)}
        if "exact_match" in self.measures:
            values["exact_match"] = float((facts[:, 2] == 0).mean())
        score = sum(values[name] for name in metric.measures) / len(metric.measures)
        values["perplexity"] = math.exp(min(-log_likelihood, LARGEST_EXPONENT))
        return Evaluation(score, values, loss=float(-log_likelihood))

    def constant(self, train: Split, split: Split) -> None:
        return None


@dataclass(frozen=True)
class _Causal(_Writing):
    """What decoders write, token after token of one sequence."""

    task_type: ClassVar[str] = "CAUSAL_LM"
    model_class: ClassVar[Any] = AutoModelForCausalLM

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises a `ConfigError` unless each position of the model sees no later one."""
        ids = torch.tensor([[0, 1, 0, 1], [0, 1, 0, 0]], device=model.device)
        with torch.inference_mode():
            first, second = model(input_ids=ids).logits[:, 0]
        if model.config.is_encoder_decoder or not torch.allclose(first, second, atol=1e-4):
            raise ConfigError(
                f"Expected a decoder for {self.name}, whose tokens do not see later ones; "
                f"{type(model).__name__} is none. An encoder-decoder is for seq2seq."
            )

    def collate(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
        return dict(DataCollatorForTokenClassification(tokenizer)(list(examples)))

    def num_terms(self, examples: Sequence[Example]) -> int:
        # nothing predicts the first token
        return sum(label != IGNORED for example in examples for label in example["labels"][1:])

    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return model(**inputs).logits[:, :-1], batch["labels"][:, 1:]


@final
@dataclass(frozen=True)
class LanguageModelling(_Causal):
    """Any text; one that is longer than ``max_length`` becomes several examples."""

    name: ClassVar[str] = "language-modelling"
    measures: ClassVar[tuple[str, ...]] = ("log_likelihood",)

    @classmethod
    def read(
        cls,
        table: Table,
        text_columns: tuple[str, ...],
        label_column: str,
        *,
        names: tuple[str, ...] = (),
    ) -> tuple[Self, Callable[[Table], Split]]:
        """Reads one column, which is text and label in one."""
        return super().read(table, text_columns, text_columns[0])

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        special = tokenizer.num_special_tokens_to_add(pair=False)
        check_max_length(tokenizer, max_length, fewest=special + 2)
        texts = [text for (text,) in split.texts]
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        examples = []
        for ids in tokenizer(texts, verbose=False)["input_ids"]:
            ids = ids if ids[-1:] == end else ids + end
            for start in range(0, len(ids), max_length):
                part = ids[start : start + max_length]
                if len(part) > 1:
                    examples.append(_sequence(part, part))
        if not examples:
            raise TaskError("expected texts of at least two tokens, got none")
        return examples

    def labels(self, split: Split, examples: Sequence[Example]) -> Sequence[Any]:
        # a text may have become several examples
        return [example["labels"] for example in examples]


@final
@dataclass(frozen=True)
class Completion(_Causal):
    """What follows a prompt, in one text with it; only the completion is learned.

    Prompt and completion are joined as they are, so a blank between them belongs to either. Where
    they are longer than ``max_length``, the beginning of the prompt is left out.
    """

    name: ClassVar[str] = "completion"
    text_columns: ClassVar[tuple[str, ...]] = ("prompt",)
    label_column: ClassVar[str] = "completion"

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        special = tokenizer.num_special_tokens_to_add(pair=False)
        check_max_length(tokenizer, max_length, fewest=special + 2)
        if tokenizer.eos_token_id is None:
            raise TaskError("the tokenizer has no end token, by which a completion ends")
        prompts = [prompt for (prompt,) in split.texts]
        wholes = [a + b for a, b in zip(prompts, split.labels, strict=True)]
        examples, num_cut = [], 0
        for prompt, whole, completion in zip(
            _ids(prompts, tokenizer), _ids(wholes, tokenizer), split.labels, strict=True
        ):
            answer = whole[len(prompt) :]
            if whole[: len(prompt)] != prompt:  # a token spans the border
                answer = tokenizer(completion, add_special_tokens=False)["input_ids"]
            ids = prompt + answer + [tokenizer.eos_token_id]
            labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
            num_cut += len(ids) > max_length
            examples.append(_sequence(ids[-max_length:], labels[-max_length:]))
        _tell_cut(num_cut, len(examples), max_length)
        return examples


@final
@dataclass(frozen=True)
class SequenceToSequence(_Writing):
    """What an encoder-decoder writes when it reads a source."""

    name: ClassVar[str] = "seq2seq"
    task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    model_class: ClassVar[Any] = AutoModelForSeq2SeqLM
    text_columns: ClassVar[tuple[str, ...]] = ("source",)
    label_column: ClassVar[str] = "target"

    def tokenize(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Example]:
        special = tokenizer.num_special_tokens_to_add(pair=False)
        check_max_length(tokenizer, max_length, fewest=special + 1)
        sources = [source for (source,) in split.texts]
        options = {"truncation": True, "max_length": max_length}
        encoded = tokenizer(sources, **options)
        targets = tokenizer(text_target=list(split.labels), **options)["input_ids"]
        _tell_cut(sum(len(ids) == max_length for ids in targets), len(targets), max_length)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": target}
            for ids, mask, target in zip(
                encoded["input_ids"], encoded["attention_mask"], targets, strict=True
            )
        ]

    def length(self, example: Example) -> int:
        return len(example["input_ids"]) + len(example["labels"])

    def collate(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
        return dict(DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)(list(examples)))

    def num_terms(self, examples: Sequence[Example]) -> int:
        return sum(len(example["labels"]) for example in examples)

    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        # it makes the decoder's inputs of the labels
        return model(**batch).logits, batch["labels"]


def _sequence(ids: list[int], labels: list[int]) -> Example:
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(labels)}


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of texts that go on: with whatever begins a text, without what ends it."""
    rows = tokenizer(texts, verbose=False)["input_ids"]
    return [ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids for ids in rows]


def _tell_cut(num_cut: int, total: int, max_length: int) -> None:
    if num_cut:
        logger.warning(
            "%d of %d examples have more than %d tokens and were cut", num_cut, total, max_length
        )
