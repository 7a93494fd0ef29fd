"""The embedded task: what does the speaker want to know? Generated, English, offline.

Each sentence holds two indirect questions, one that somebody asks and one whose answer is known:
"Maria knew why the bell rang but asked where the ferry stopped." The label is what is asked (here
a place). Both questions are drawn alike and may stand in either order, so the words alone do not
tell; a model must tie the question to its verb. Training, search-dev and test share function
words only: their content words and their templates are disjoint. benchmarks/embedded_task
measures what models make of it.
"""

import random
from dataclasses import dataclass

from .grammar import DEV, TEST, TRAIN, Lexicon
from .task import Split

__all__ = ["EMBEDDED", "LABEL_NAMES", "load_questions"]

EMBEDDED = "questions"
LABEL_NAMES = ("person", "place", "time", "number", "reason", "manner")
SIZES = {"train": 4800, "dev": 600, "test": 1200}
SEED = 2026


@dataclass(frozen=True)
class _Speaker:
    """Draws sentences of one lexicon."""

    lexicon: Lexicon
    rng: random.Random

    def sentence(self, asked: str) -> str:
        """Returns a sentence in which somebody asks for `asked` and knows something else."""
        known = self.rng.choice([label for label in LABEL_NAMES if label != asked])
        parts = {
            "asked": self._question(asked),
            "known": self._question(known),
            "ask": self._word("ask"),
            "know": self._word("know"),
            "person": self._word("person"),
            "name": self._word("name"),
        }
        text = self.rng.choice(self.lexicon.templates).format(**parts)
        return text[0].upper() + text[1:]

    def _question(self, label: str) -> str:
        form = self.rng.choice(self.lexicon.questions[label])
        slots = ("thing", "things", "person", "place", "period", "did", "name")
        return form.format(**{slot: self._word(slot) for slot in slots})

    def _word(self, slot: str) -> str:
        return self.rng.choice(self.lexicon.words[slot])


def load_questions() -> dict[str, Split]:
    """Returns the train, dev and test splits, always the same, with equal class shares."""
    lexicons = {"train": TRAIN, "dev": DEV, "test": TEST}
    return {
        name: _generate(_Speaker(lexicon, random.Random(f"{SEED}/{name}")), SIZES[name])
        for name, lexicon in lexicons.items()
    }


def _generate(speaker: _Speaker, size: int) -> Split:
    sentences: dict[str, int] = {}
    while len(sentences) < size:
        label = len(sentences) % len(LABEL_NAMES)
        sentences.setdefault(speaker.sentence(LABEL_NAMES[label]), label)
    rows = list(sentences.items())
    speaker.rng.shuffle(rows)
    return Split(tuple((text,) for text, _ in rows), tuple(label for _, label in rows))
