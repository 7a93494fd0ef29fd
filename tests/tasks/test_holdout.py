"""Holding out and making smaller: shares, duplicates, determinism."""

import random
from collections import Counter

import pytest

from peft_autoconfig.errors import TaskError
from peft_autoconfig.tasks import Split
from peft_autoconfig.tasks.classification import Classification, Regression
from peft_autoconfig.tasks.holdout import hold_out, keep, without
from peft_autoconfig.tasks.multiple_choice import MultipleChoice

CLASSES = Classification(tuple("abcdefgh"))
NUM_COMMON, NUM_RARE = 160, 40
SPLIT = Split(
    tuple((f"text {i}",) for i in range(NUM_COMMON + NUM_RARE)),
    (0,) * NUM_COMMON + (1,) * NUM_RARE,
)


def divide(split=SPLIT, **changes):
    options = dict(fraction=0.25, max_examples=None, seed=0, kind=CLASSES)
    return hold_out(split, **(options | changes))


def test_shares_of_classes_are_kept():
    rest, held = divide()
    assert Counter(held.labels) == {0: 40, 1: 10}
    assert Counter(rest.labels) == {0: 120, 1: 30}
    assert set(rest.texts) | set(held.texts) == set(SPLIT.texts)


def test_same_seed_same_choice_other_seed_other_choice():
    assert divide() == divide()
    assert divide(seed=1)[1] != divide()[1]


def test_at_most_so_many_are_held_out():
    _, held = divide(max_examples=20)
    assert Counter(held.labels) == {0: 16, 1: 4}
    assert len(divide(kind=Regression(), max_examples=20)[1]) == 20


def test_copies_of_a_text_stay_on_one_side():
    texts = tuple((f"text {i % 50}",) for i in range(200))
    rest, held = divide(Split(texts, tuple(i % 2 for i in range(200))))
    assert not set(rest.texts) & set(held.texts)
    assert len(rest) + len(held) == 200
    assert len(held) == pytest.approx(50, abs=4)


def test_questions_with_other_choices_stay_on_one_side():
    texts = tuple((f"question {i // 2}", f"choice {i}", "none") for i in range(200))
    split = Split(texts, tuple(i % 2 for i in range(200)))
    rest, held = divide(split, kind=MultipleChoice(("one", "two")))
    assert not {first for first, *_ in rest.texts} & {first for first, *_ in held.texts}
    assert [i % 2 for i in held.labels] == [0, 1] * (len(held) // 2)


def test_a_rare_class_is_on_both_sides():
    split = Split(SPLIT.texts, (0,) * 198 + (1,) * 2)
    rest, held = divide(split, max_examples=10)
    assert Counter(rest.labels)[1] == Counter(held.labels)[1] == 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 5])
def test_impossible_fractions_are_refused(fraction):
    with pytest.raises(TaskError, match=f"between 0 and 1, got {fraction}"):
        divide(fraction=fraction)


def test_a_class_of_one_text_is_refused():
    split = Split(SPLIT.texts, (0,) * 199 + (7,))
    with pytest.raises(TaskError, match=r"label 7 has 1 text in 200 training examples"):
        divide(split)


def test_smaller_choices_are_nested_and_balanced():
    small = keep(SPLIT, max_examples=20, seed=0, kind=CLASSES)
    large = keep(SPLIT, max_examples=80, seed=0, kind=CLASSES)
    assert Counter(small.labels) == {0: 16, 1: 4}
    assert set(small.texts) < set(large.texts)
    assert keep(SPLIT, max_examples=None, seed=0, kind=CLASSES) is SPLIT
    assert keep(SPLIT, max_examples=500, seed=0, kind=CLASSES) is SPLIT


def test_every_class_keeps_an_example():
    split = Split(SPLIT.texts, (0,) * 197 + (1, 2, 3))
    kept = keep(split, max_examples=4, seed=0, kind=CLASSES)
    assert sorted(kept.labels) == [0, 1, 2, 3]
    with pytest.raises(TaskError, match="at least 4, one a class, got 3"):
        keep(split, max_examples=3, seed=0, kind=CLASSES)


def test_counts_add_up_whatever_the_shares():
    rng = random.Random(0)
    for _ in range(50):
        labels = tuple(rng.choice([0, 0, 0, 1, 2]) for _ in range(100))
        split = Split(tuple((str(i),) for i in range(100)), labels)
        wanted = rng.randint(3, 99)
        kept = keep(split, max_examples=wanted, seed=0, kind=CLASSES)
        assert len(kept) == wanted


def test_without_removes_equal_texts_whatever_their_label():
    other = Split((("text 0",), ("text 5",), ("elsewhere",)), (1, 0, 0))
    left = without(SPLIT, other)
    assert len(left) == len(SPLIT) - 2
    assert ("text 0",) not in left.texts
