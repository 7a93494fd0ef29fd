"""Measures of tag sequences: whole spans by F1, single words by accuracy.

A tag is ``O``, or a position and a type with a dash between: ``B-PER`` begins a span, ``I-PER``
goes on with it; ``E-`` and ``L-`` end one, ``S-`` and ``U-`` are one by themselves. Spans are read
leniently, as CoNLL's own script and seqeval do: an ``I-`` that continues nothing begins a span.

Imports nothing of ours; imported by `metric`.
"""

from collections.abc import Sequence

__all__ = ["span_f1", "spans_of", "token_accuracy"]

Tags = Sequence[str]
# type, number of the first word, number of the last
Span = tuple[str, int, int]

_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")


def spans_of(tags: Tags) -> set[Span]:
    """Returns the spans of one sentence."""
    spans: set[Span] = set()
    start: int | None = None
    open_type = ""
    for number, tag in enumerate([*tags, "O"]):
        position, _, kind = tag.partition("-")
        is_outside = position == "O" and not kind
        if start is not None and (is_outside or kind != open_type or position in _BEGINS):
            spans.add((open_type, start, number - 1))
            start = None
        if is_outside:
            continue
        if start is None:
            start, open_type = number, kind
        if position in _ENDS:
            spans.add((kind, start, number))
            start = None
    return spans


def span_f1(references: Sequence[Tags], predictions: Sequence[Tags]) -> float:
    """Returns F1 over the spans of all sentences, where limits and type must be right; [0, 1]."""
    hits = right = found = 0
    for reference, prediction in zip(references, predictions, strict=True):
        expected, given = spans_of(reference), spans_of(prediction)
        hits += len(expected & given)
        right += len(expected)
        found += len(given)
    return 2 * hits / (right + found) if right + found else 0.0


def token_accuracy(references: Sequence[Tags], predictions: Sequence[Tags]) -> float:
    """Returns the share of words with the right tag, [0, 1]."""
    pairs = [
        pair
        for sentence in zip(references, predictions, strict=True)
        for pair in zip(*sentence, strict=True)
    ]
    return sum(reference == prediction for reference, prediction in pairs) / len(pairs)
