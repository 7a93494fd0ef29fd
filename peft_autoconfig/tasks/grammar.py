"""Words and templates of the embedded task: three sets that share function words only.

Facts, no logic: `questions` makes sentences of them. The nouns are common and of one meaning: a
rare or ambiguous one is right in every sentence or in none, which made scores jump between seeds.
"""

from dataclasses import dataclass

__all__ = ["DEV", "FUNCTION_WORDS", "TEST", "TRAIN", "Lexicon"]


@dataclass(frozen=True)
class Lexicon:
    """What one split may say.

    Attributes:
        templates: Sentences over ``which`` (how the question is put), ``asked`` (the noun asked
            for), ``this`` and ``that`` (two nouns of other kinds).
        which: Forms of the question word.
        nouns: Nouns by their kind, the classes of the task.
    """

    templates: tuple[str, ...]
    which: tuple[str, ...]
    nouns: dict[str, tuple[str, ...]]


FUNCTION_WORDS = frozenset(
    "a an the and or but of to in on at by from with without for after before behind beside "
    "between if so than that this is are was be can did do does you he she it we they them me "
    "which what more as while not no".split()
)


def _nouns(**texts: str) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(text.split()) for kind, text in texts.items()}


TRAIN = Lexicon(
    templates=(
        "{which} {asked} stands between the {this} and the {that}?",
        "tell me {which} {asked} you drew beside the {this} and the {that}.",
        "behind the {this}, {which} {asked} can you see near the {that}?",
        "the card with the {this} and the {that} lacks {which} {asked}?",
        "after the {this}, {which} {asked} did he add to the {that}?",
        "the {this} and the {that} are mine, but {which} {asked} is yours?",
        "she knows {which} {asked} is smaller than the {this} or the {that}.",
        "while the {this} hid the {that}, {which} {asked} did she notice?",
    ),
    which=("which", "what", "which other", "what kind of"),
    nouns=_nouns(
        person="farmer pilot teacher lawyer singer painter baker soldier butcher student mayor "
        "poet",
        bird="eagle pigeon owl crow hawk robin chicken turkey falcon vulture",
        mammal="horse goat rabbit tiger mouse donkey bear sheep cow monkey dolphin squirrel",
        clothing="shirt coat hat glove scarf dress shoe sweater trousers cloak apron vest",
        instrument="piano guitar drum trumpet harp bell banjo clarinet",
        vehicle="car ferry bicycle train canoe tram rocket taxi carriage submarine jeep yacht",
        food="apple lemon banana orange peach coconut berry lime soup cake salad pasta sausage "
        "bread pancake cheese sandwich rice",
        place="church school prison library palace tower hotel cottage theatre factory valley "
        "desert beach island meadow lake cliff jungle glacier swamp",
    ),
)

DEV = Lexicon(
    templates=(
        "besides the {this} and the {that}, {which} {asked} was painted?",
        "{which} {asked} looks more famous than the {this} or the {that}?",
        "ask them {which} {asked} replaced the {this} or the {that}.",
        "they forgot {which} {asked} belongs with the {this} and the {that}.",
        "if the {this} goes first, {which} {asked} follows the {that}?",
        "the {this} and the {that} were sold, so {which} {asked} remains?",
    ),
    which=("which", "what", "which new", "what sort of"),
    nouns=_nouns(
        person="doctor sailor judge dancer waiter nurse priest surgeon",
        bird="parrot sparrow goose penguin raven swan",
        mammal="dog wolf fox pig lion leopard buffalo kangaroo",
        clothing="jacket skirt jeans helmet tunic cape belt",
        instrument="violin flute cello saxophone tambourine",
        vehicle="bus truck motorcycle airplane wagon van ambulance",
        food="cherry grape strawberry pear pineapple steak pizza stew curry burger noodles",
        place="castle temple hospital museum monastery barn forest hill lagoon plateau canyon "
        "shore",
    ),
)

TEST = Lexicon(
    templates=(
        "without the {this} or the {that}, {which} {asked} would win?",
        "please guess {which} {asked} inspired the {this} and the {that}.",
        "{which} {asked} seems older than the {this} and the {that}?",
        "nobody remembers {which} {asked} arrived before the {this} or the {that}.",
        "from the {this} down to the {that}, {which} {asked} is missing?",
        "because the {this} resembles the {that}, {which} {asked} differs?",
    ),
    which=("which", "what", "which single", "what type of"),
    nouns=_nouns(
        person="carpenter hunter sergeant cook senator dentist actress bishop",
        bird="duck hen rooster dove gull ostrich",
        mammal="cat deer elephant zebra rat badger bull gorilla",
        clothing="blouse cap gown robe boot hood bikini",
        instrument="organ bass fiddle accordion trombone",
        vehicle="boat plane cruiser lifeboat streetcar tanker biplane",
        food="mango melon fig plum olive pie pudding bacon cookie pastry omelette",
        place="cathedral chapel mansion tavern restaurant warehouse mountain river marsh creek "
        "ocean volcano",
    ),
)
