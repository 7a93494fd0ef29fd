"""All kinds of tasks by their names.

Imports the kinds; imported by `loading`.
"""

from ..errors import TaskError
from .classification import Classification, Regression
from .kind import Kind
from .multiple_choice import MultipleChoice
from .token_classification import TokenClassification
from .writing import Completion, LanguageModelling, SequenceToSequence

__all__ = ["KINDS", "kind_named"]

KINDS: dict[str, type[Kind]] = {
    kind.name: kind
    for kind in (
        Classification,
        Regression,
        MultipleChoice,
        TokenClassification,
        LanguageModelling,
        Completion,
        SequenceToSequence,
    )
}


def kind_named(name: str) -> type[Kind]:
    """Returns the kind of a name.

    Raises:
        TaskError: If there is none.
    """
    if name not in KINDS:
        raise TaskError(f"kind must be one of {list(KINDS)}, got {name!r}")
    return KINDS[name]
