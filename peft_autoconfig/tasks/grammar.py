"""Words and templates of the embedded task, three sets that share function words only.

Facts, no logic: `questions` makes sentences of them.
"""

from dataclasses import dataclass

__all__ = ["DEV", "FUNCTION_WORDS", "TEST", "TRAIN", "Lexicon"]


@dataclass(frozen=True)
class Lexicon:
    """What one split may say.

    Attributes:
        templates: Sentences over the slots asked, known, ask, know, person and name.
        questions: Forms of an indirect question by what it asks for.
        words: Words by slot.
    """

    templates: tuple[str, ...]
    questions: dict[str, tuple[str, ...]]
    words: dict[str, tuple[str, ...]]


FUNCTION_WORDS = frozenset(
    "a an the and but or yet while although though because since after before as if then so "
    "who whom whose which what where when why how many much few is was were be been being are "
    "did does do had has have having not no to of in on at by for from with about that this "
    "one i we he she they it you nobody s".split()
)


def _words(**slots: str) -> dict[str, tuple[str, ...]]:
    """Words by slot; a comma separates entries of several words."""
    return {name: tuple(part.strip() for part in text.split(",")) for name, text in slots.items()}


TRAIN = Lexicon(
    templates=(
        "{name} {ask} {asked} but {know} {known}.",
        "{name} {know} {known} but {ask} {asked}.",
        "the {person} who {know} {known} {ask} {asked}.",
        "the {person} who {ask} {asked} {know} {known}.",
        "although {name} {know} {known}, she {ask} {asked}.",
        "although {name} {ask} {asked}, he {know} {known}.",
    ),
    questions={
        "person": ("who {did}", "which {person} {did}", "whose {thing} {did}"),
        "place": ("where {name} {did}", "where the {thing} {did}", "in which {place} {name} {did}"),
        "time": ("when {name} {did}", "when the {thing} {did}", "in which {period} {name} {did}"),
        "number": ("how many {things} {did}", "how many {things} {name} had"),
        "reason": ("why {name} {did}", "why the {thing} {did}"),
        "manner": ("how {name} {did}", "how the {thing} {did}"),
    },
    words=_words(
        ask="asked, wondered, wanted to know, inquired, demanded to hear",
        know="knew, remembered, explained, told us, understood",
        person="nurse, farmer, pilot, teacher, lawyer, singer, painter, guard, driver, baker",
        name="Anna, Peter, Maria, John, Lucy, Tom, Emma, Paul, Sarah, David, Julia, Mark",
        thing="ferry, bell, engine, letter, horse, clock, lamp, bridge, ship, door",
        things="apples, horses, letters, tickets, chairs, stones, books, coins",
        place="town, valley, harbour, street, garden, cellar",
        period="month, week, summer, decade",
        did="stopped, vanished, fell, left, arrived, changed, returned, broke",
    ),
)

DEV = Lexicon(
    templates=(
        "{name}, though he {know} {known}, {ask} {asked}.",
        "having {know} {known}, {name} {ask} {asked}.",
        "{name} {ask} {asked}, and the {person} {know} {known}.",
        "the {person} {know} {known}, and {name} {ask} {asked}.",
    ),
    questions={
        "person": ("who {did}", "which {person} {did}", "whose {thing} {did}"),
        "place": ("where {name} {did}", "where the {thing} {did}", "at which {place} {name} {did}"),
        "time": ("when {name} {did}", "when the {thing} {did}", "on which {period} {name} {did}"),
        "number": ("how many {things} {did}", "how many of the {things} {did}"),
        "reason": ("why {name} {did}", "why the {thing} {did}"),
        "manner": ("how {name} {did}", "how the {thing} {did}"),
    },
    words=_words(
        ask="was unsure, could only guess, had to find out, questioned",
        know="learned, recalled, described, guessed",
        person="doctor, sailor, miner, judge, dancer, waiter",
        name="Oscar, Helen, Victor, Clara, Simon, Laura",
        thing="train, mirror, statue, fountain, kettle, wagon",
        things="bottles, candles, boats, lions, pearls",
        place="corner, station, castle, village",
        period="morning, holiday, afternoon",
        did="appeared, disappeared, moved, collapsed, started, failed",
    ),
)

TEST = Lexicon(
    templates=(
        "{name}, who {know} {known}, {ask} {asked}.",
        "{name}, who {ask} {asked}, {know} {known}.",
        "while the {person} {know} {known}, {name} {ask} {asked}.",
        "while the {person} {ask} {asked}, {name} {know} {known}.",
    ),
    questions={
        "person": ("who {did}", "which {person} {did}", "whose {thing} {did}"),
        "place": (
            "where {name} {did}",
            "where the {thing} {did}",
            "from which {place} {name} {did}",
        ),
        "time": ("when {name} {did}", "when the {thing} {did}", "at which {period} {name} {did}"),
        "number": ("how many {things} {did}", "how many {things} there were"),
        "reason": ("why {name} {did}", "why the {thing} {did}"),
        "manner": ("how {name} {did}", "how the {thing} {did}"),
    },
    words=_words(
        ask="sought to discover, puzzled over, investigated, was curious",
        know="revealed, reported, confirmed, announced",
        person="plumber, queen, chemist, tailor, priest, actor",
        name="Nora, Felix, Irene, Hugo, Martha, Leon",
        thing="tower, violin, carriage, curtain, robot, barrel",
        things="spoons, wolves, paintings, ladders, roses",
        place="island, market, forest, palace",
        period="hour, moment, season",
        did="burned, exploded, escaped, sank, grew, opened",
    ),
)
