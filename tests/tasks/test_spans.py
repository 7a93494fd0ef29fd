"""Spans of tags, read as seqeval reads them, and their measures."""

import random

import pytest

from peft_autoconfig.tasks.spans import span_f1, spans_of, token_accuracy


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-A I-A O B-B", [("A", 0, 1), ("B", 3, 3)]),
        ("B-A B-A", [("A", 0, 0), ("A", 1, 1)]),
        ("I-A I-A I-B", [("A", 0, 1), ("B", 2, 2)]),
        ("O I-A O I-A", [("A", 1, 1), ("A", 3, 3)]),
        ("B-A I-B I-B", [("A", 0, 0), ("B", 1, 2)]),
        ("B-A I-A E-A S-B O", [("A", 0, 2), ("B", 3, 3)]),
        ("B-X-Y I-X-Y", [("X-Y", 0, 1)]),
    ],
)
def test_spans_begin_and_end_as_tags_say(tags, spans):
    assert spans_of(tags.split()) == set(spans)


def test_a_span_counts_only_as_a_whole():
    reference = ["B-A", "I-A", "O", "B-B"]
    assert span_f1([reference], [reference]) == 1.0
    # one of two is found, and one that is none: precision and recall are a half
    assert span_f1([reference], [["B-A", "O", "O", "B-B"]]) == pytest.approx(0.5)
    assert span_f1([reference], [["O"] * 4]) == 0.0
    assert span_f1([["O"]], [["O"]]) == 0.0
    assert token_accuracy([reference, ["O"]], [["B-A", "O", "O", "B-B"], ["O"]]) == 0.8


def test_the_same_as_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = random.Random(0)
    tags = ["O", "B-A", "I-A", "B-B", "I-B", "E-A", "S-B"]
    for _ in range(200):
        sides = [[[rng.choice(tags) for _ in range(9)] for _ in range(3)] for _ in "rp"]
        assert span_f1(*sides) == pytest.approx(seqeval.f1_score(*sides, zero_division=0))
