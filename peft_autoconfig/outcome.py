"""What one evaluation of a configuration gives: the value that an objective hands to a search.

Imports nothing; imported by `training` (which makes outcomes) and `search` (which stores them), so
that neither has to know the other.
"""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """The result of training and evaluating one configuration.

    Attributes:
        score: The task's metric on the search-dev split, higher is better.
        loss: A smooth companion of a coarse metric: mean negative log-likelihood (classification)
            or mean squared error (regression) per example, lower is better; None if unknown.
        seconds: Wall-clock seconds that the evaluation took.
        details: Further JSON-compatible facts worth keeping beside the trial.
    """

    score: float
    loss: float | None = None
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
