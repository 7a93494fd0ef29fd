"""Words and templates of the embedded task: three sets that share function words only.

Facts, no logic: `questions` makes sentences of them.
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
        person="farmer pilot teacher lawyer singer painter baker widow king soldier butcher "
        "student mayor thief poet captain queen clerk",
        animal="horse goat rabbit eagle snake tiger mouse donkey pigeon whale spider bear sheep "
        "frog cow monkey dolphin owl",
        place="valley harbour street garden town desert church school prison beach bridge park "
        "cave airport cellar kitchen island library",
        food="bread cheese soup apple rice cake butter onion honey salad lemon pie potato jam "
        "cabbage pasta peanut corn",
        clothing="shirt coat hat glove scarf dress shoe sweater trousers cloak apron uniform sock "
        "robe boot vest tuxedo bonnet",
        vehicle="car ferry bicycle train lorry helicopter canoe tram rocket taxi carriage scooter "
        "submarine jeep yacht tractor raft glider",
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
        person="doctor sailor judge dancer waiter nurse duchess priest cousin sheriff chemist "
        "knight surgeon actor",
        animal="dog wolf parrot fox pig lizard lion ant penguin kangaroo leopard goose panther "
        "buffalo",
        place="village castle forest market temple hospital museum farm suburb basement theatre "
        "courtyard monastery balcony",
        food="carrot steak sandwich pizza cherry garlic shrimp stew chocolate banana sausage "
        "grape cucumber spinach",
        clothing="jacket skirt jeans helmet tunic belt cape bra necklace raincoat pajamas slipper",
        vehicle="bus truck motorcycle airplane wagon van ambulance locomotive barge chariot "
        "spaceship cart kayak minibus",
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
        person="carpenter actress bishop hunter sergeant cook aunt senator maid wizard princess "
        "dentist tutor barber",
        animal="cat deer elephant shark crow turtle zebra squirrel bee gorilla rat crocodile "
        "octopus badger",
        place="city mountain river hotel cemetery restaurant orchard chapel ranch glacier "
        "ballroom warehouse jungle tavern",
        food="tomato pudding bacon cookie pear mushroom cereal strawberry pepper almond pastry "
        "curry pumpkin mango",
        clothing="blouse cap gown corset swimsuit sneaker pants veil hood bikini shawl",
        vehicle="boat plane caravan cruiser ship lifeboat streetcar freighter airship pickup "
        "stagecoach tanker biplane motorbike",
    ),
)
