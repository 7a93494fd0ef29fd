"""The task's score: the measures of GLUE and SuperGLUE as one local module of `evaluate`.

Nothing is downloaded and nothing stays on disk: the module is a class of ours, its predictions stay
in memory, and the folder that `evaluate` insists on making is a temporary one of each call, so
any number of processes may measure at once. Where a task has two official measures its score is
their mean, as in the GLUE average. Higher is always better.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics

from ..errors import TaskError
from .spans import span_f1, token_accuracy

__all__ = [
    "CLASS_MEASURES",
    "TAG_MEASURES",
    "TEXT_MEASURES",
    "VALUE_MEASURES",
    "Evaluation",
    "Metric",
]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Measure = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Evaluation:
    """What a metric says of one set of predictions.

    Attributes:
        score: Mean of the metric's measures, higher is better; never NaN.
        measures: Each measure by its name, and what else is worth showing, such as a perplexity.
        loss: Mean negative log-likelihood or mean squared error per example, word or token, where
            it was asked for; None when it is unknown or not finite.
        reason: Why a measure had to be set to 0, or None.
    """

    score: float
    measures: dict[str, float]
    loss: float | None = None
    reason: str | None = None


def _accuracy(references: Array, predictions: Array) -> float:
    return float(metrics.accuracy_score(references, predictions))


def _f1(references: Array, predictions: Array) -> float:
    """F1 of the class with label id 1."""
    return float(metrics.f1_score(references, predictions, pos_label=1, zero_division=0.0))


def _macro_f1(references: Array, predictions: Array) -> float:
    """Unweighted mean of F1 over the classes that occur in either argument."""
    return float(metrics.f1_score(references, predictions, average="macro", zero_division=0.0))


def _matthews(references: Array, predictions: Array) -> float:
    return float(metrics.matthews_corrcoef(references, predictions))


def _pearson(references: Array, predictions: Array) -> float:
    return float(stats.pearsonr(references, predictions).statistic)


def _spearman(references: Array, predictions: Array) -> float:
    return float(stats.spearmanr(references, predictions).statistic)


CLASS_MEASURES: dict[str, Measure] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
}
VALUE_MEASURES: dict[str, Measure] = {"pearson": _pearson, "spearman": _spearman}
# Of sequences of tags.
TAG_MEASURES = {"span_f1": span_f1, "token_accuracy": token_accuracy}
# Computed where texts are written: the share of answers that are right to the last token, and the
# mean log-likelihood of a token in nats.
TEXT_MEASURES = ("exact_match", "log_likelihood")

_FAMILIES: dict[str, tuple[str, ...]] = {
    "classification": tuple(CLASS_MEASURES),
    "regression": tuple(VALUE_MEASURES),
    "token classification": tuple(TAG_MEASURES),
    "texts to be written": TEXT_MEASURES,
}


class _Measures(evaluate.Metric):  # type: ignore[misc]
    """Several measures of the same predictions; `config_name` lists them, joined by a plus."""

    def _info(self) -> evaluate.MetricInfo:
        names = self.config_name.split("+")
        dtype = "int64" if set(names) <= set(CLASS_MEASURES) else "float64"
        features = {key: datasets.Value(dtype) for key in ("predictions", "references")}
        return evaluate.MetricInfo(
            description="Measures of GLUE and SuperGLUE, computed by scikit-learn and SciPy.",
            citation="",
            features=datasets.Features(features),
            format="numpy",
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        known = CLASS_MEASURES | VALUE_MEASURES
        x, y = np.asarray(references), np.asarray(predictions)
        return {name: known[name](x, y) for name in self.config_name.split("+")}


@dataclass(frozen=True)
class Metric:
    """The measures of a task, and their mean as its score.

    Attributes:
        measures: Names of measures, all of `CLASS_MEASURES`, of `VALUE_MEASURES`, of
            `TAG_MEASURES` or of `TEXT_MEASURES`.

    Raises:
        TaskError: If a name is unknown, or those are mixed.
    """

    measures: tuple[str, ...] = ("accuracy",)

    def __post_init__(self) -> None:
        names = set(self.measures)
        if not names or not any(names <= set(family) for family in _FAMILIES.values()):
            families = " or ".join(f"{list(f)} ({name})" for name, f in _FAMILIES.items())
            raise TaskError(
                f"a metric needs measures all from {families}, got {list(self.measures)}"
            )

    @property
    def name(self) -> str:
        """The measures joined by a plus, such as ``accuracy+f1``."""
        return "+".join(self.measures)

    @property
    def is_regression(self) -> bool:
        """Whether it compares real values instead of class ids."""
        return self.measures[0] in VALUE_MEASURES

    def evaluate(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> Evaluation:
        """Returns the score of class ids, of real values, or of lists of tags.

        A correlation of constant, non-finite or fewer than two values does not exist: it counts as
        0, and the evaluation says why.

        Raises:
            TaskError: If there is nothing to compare or the lengths differ.
        """
        if len(predictions) != len(references) or not len(references):
            raise TaskError(
                f"expected as many predictions as references and at least one, got "
                f"{len(predictions)} predictions and {len(references)} references"
            )
        reason = self._undefined(predictions, references)
        if reason:
            logger.warning("%s counts as 0: %s", self.name, reason)
            return Evaluation(0.0, dict.fromkeys(self.measures, 0.0), reason=reason)
        if self.measures[0] in TAG_MEASURES:
            values = {name: TAG_MEASURES[name](references, predictions) for name in self.measures}
            return Evaluation(sum(values.values()) / len(values), values)
        with tempfile.TemporaryDirectory() as folder:
            module = _Measures(config_name=self.name, keep_in_memory=True, cache_dir=folder)
            values = module.compute(predictions=predictions, references=references)
        return Evaluation(sum(values.values()) / len(values), values)

    def _undefined(self, predictions: Sequence[Any], references: Sequence[Any]) -> str | None:
        """Why the measures have no value for these numbers, or None."""
        if not self.is_regression:
            return None
        if len(references) < 2:
            return "a correlation needs at least two examples"
        for name, values in (("predictions", predictions), ("references", references)):
            array = np.asarray(values, dtype=float)
            if not np.isfinite(array).all():
                return f"some {name} are not finite"
            # The spread is compared with rounding error, as a constant head may jitter in float32.
            if np.ptp(array) <= 1e-9 * max(1.0, float(np.abs(array).max())):
                return f"all {name} are equal"
        return None
