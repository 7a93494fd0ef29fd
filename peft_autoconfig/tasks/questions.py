"""The embedded task: what kind of thing does a question ask for? Generated, English, offline.

Each sentence names three things of three kinds and asks for one of them: "Behind the whale, which
poet can you see near the ladder?" asks for a person. The other two may stand anywhere, so a bag of
words cannot tell which noun counts; a model must tie the question word to its noun and know the
noun's kind. Training, search-dev and reporting sentences share function words only: their content
words and templates are disjoint. benchmarks/embedded_task has what models make of it.
"""

import random
from dataclasses import dataclass

from .grammar import DEV, TEST, TRAIN, Lexicon
from .split import Split

__all__ = ["EMBEDDED", "LABEL_NAMES", "load_questions"]

EMBEDDED = "questions"
LABEL_NAMES = tuple(TRAIN.nouns)
SIZES = {"train": 4800, "dev": 600, "test": 1200}
# The data are the same for every search; what a search draws by its own seed is not.
SEED = 2026


@dataclass(frozen=True)
class _Speaker:
    """Draws sentences of one lexicon."""

    lexicon: Lexicon
    rng: random.Random

    def sentence(self, kind: str) -> str:
        """Returns a sentence that asks for a thing of that kind, beside two of other kinds."""
        others = self.rng.sample([other for other in LABEL_NAMES if other != kind], 2)
        asked, this, that = (self.rng.choice(self.lexicon.nouns[k]) for k in (kind, *others))
        template = self.rng.choice(self.lexicon.templates)
        which = self.rng.choice(self.lexicon.which)
        text = template.format(which=which, asked=asked, this=this, that=that)
        return text[0].upper() + text[1:]


def load_questions() -> dict[str, Split]:
    """Returns the splits ``train``, ``dev`` and ``test``, always the same, all classes equal."""
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
