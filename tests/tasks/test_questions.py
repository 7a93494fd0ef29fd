"""The embedded task: its splits keep apart what they promise, and it never changes unnoticed."""

import itertools
import re
from collections import Counter

import pytest

from peft_autoconfig.tasks import load_task
from peft_autoconfig.tasks.grammar import DEV, FUNCTION_WORDS, TEST, TRAIN

LEXICONS = {"train": TRAIN, "dev": DEV, "test": TEST}
PAIRS = list(itertools.combinations(LEXICONS, 2))


@pytest.fixture(scope="module")
def task():
    return load_task()


def words(split):
    return {word for (text,) in split.texts for word in re.findall(r"[a-z]+", text.lower())}


def stems(found):
    return {word.removesuffix("s") for word in found}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_function_words_only(task, one, other):
    shared = stems(words(getattr(task, one))) & stems(words(getattr(task, other)))
    assert shared <= stems(FUNCTION_WORDS)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_no_template_nor_text(task, one, other):
    def frames(lexicon):
        return {re.sub(r"\{\w+\}", "_", template) for template in lexicon.templates}

    assert not frames(LEXICONS[one]) & frames(LEXICONS[other])
    assert not set(getattr(task, one).texts) & set(getattr(task, other).texts)


@pytest.mark.parametrize(("name", "size"), [("train", 4800), ("dev", 600), ("test", 1200)])
def test_classes_are_balanced_and_texts_differ(task, name, size):
    split = getattr(task, name)
    assert len(split) == len(set(split.texts)) == size
    assert set(Counter(split.labels).values()) == {size // len(task.label_names)}


def test_a_noun_has_one_kind_and_no_noun_is_a_function_word():
    nouns = [n for x in LEXICONS.values() for kind in x.nouns.values() for n in kind]
    assert len(nouns) == len(set(nouns))
    assert not set(nouns) & FUNCTION_WORDS


def test_every_sentence_names_the_asked_and_two_other_kinds(task):
    for name, lexicon in LEXICONS.items():
        kinds = {noun: kind for kind, nouns in lexicon.nouns.items() for noun in nouns}
        split = getattr(task, name)
        for (text,), label in zip(split.texts, split.labels, strict=True):
            named = [kinds[word] for word in re.findall(r"[a-z]+", text.lower()) if word in kinds]
            words_asked = re.findall(r"[a-z]+", re.split(r"which|what", text.lower())[1])
            assert len(set(named)) == len(named) == 3, text
            assert (
                next(kinds[word] for word in words_asked if word in kinds)
                == (task.label_names[label])
            ), text


def test_no_class_is_told_by_the_length_or_the_position(task):
    lengths = {label: [] for label in range(len(task.label_names))}
    for (text,), label in zip(task.train.texts, task.train.labels, strict=True):
        lengths[label].append(len(text.split()))
    means = [sum(found) / len(found) for found in lengths.values()]
    assert max(means) - min(means) < 0.5
    assert 8 < sum(means) / len(means) < 14


def test_the_data_never_change_unnoticed(task):
    # Scores are compared over time: benchmarks/embedded_task must be repeated with new data.
    assert task.about()["digests"] == {
        "train": "f6e9d1e047893311",
        "dev": "fd8d89f910da2e88",
        "test": "65d6b1340b1ea051",
    }


def test_seed_and_sizes_choose_among_the_same_sentences(task):
    small = load_task(max_train_examples=80, max_dev_examples=40, seed=1)
    assert (len(small.train), len(small.dev), len(small.test)) == (80, 40, 1200)
    assert set(small.train.texts) < set(task.train.texts)
    assert set(Counter(small.train.labels).values()) == {10}
    assert small.test == task.test
    other = load_task(max_train_examples=80, seed=2)
    assert other.train.texts != small.train.texts
