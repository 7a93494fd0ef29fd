"""Labels of words: reading columns of lists, alignment with tokens, words that do not fit."""

import csv
import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import BertTokenizer

from peft_autoconfig.errors import TaskError
from peft_autoconfig.tasks import Metric, Split, load_files_task
from peft_autoconfig.tasks.token_classification import IGNORED, TokenClassification

NAMES = ("B-PER", "I-PER", "O")
ROWS = [(["sees", "tom", f"w{i}"], ["O", "B-PER", "I-PER"]) for i in range(20)]


def written(path, rows=ROWS):
    if path.suffix == ".parquet":
        tags = datasets.List(datasets.ClassLabel(names=list(NAMES)))
        features = datasets.Features(
            {"tokens": datasets.List(datasets.Value("string")), "tags": tags}
        )
        columns = {"tokens": [words for words, _ in rows], "tags": [ids for _, ids in rows]}
        pq.write_table(datasets.Dataset.from_dict(columns, features).data.table, path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"tokens": words, "tags": tags}) for words, tags in rows]
        path.write_text("\n".join(lines))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([("tokens", "tags"), *rows])
    return path


def load(path, **options):
    return load_files_task(path, kind="token-classification", **options)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_of_lists_are_read_from_every_format(tmp_path, suffix):
    task = load(written(tmp_path / f"train.{suffix}"))
    assert task.label_names == NAMES
    assert task.metric.name == "span_f1"
    assert task.dev.texts[0][:2] == ("sees", "tom")
    assert set(task.train.labels) == {(2, 0, 1)}
    assert task.about()["sizes"] == {"train": 13, "dev": 3, "test": 4}


def test_words_between_blanks_are_a_list_too(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("tokens,tags\n" + "".join(f"a w{i},DET NOUN\n" for i in range(9)))
    task = load(path)
    assert (task.label_names, task.metric.name) == (("DET", "NOUN"), "token_accuracy")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((["a", "b"], ["O"]), "expected 2 class ids from 0 to 2, one for each word, got"),
        (([], []), "expected at least one word"),
        ((3, ["O"]), "example 20: expected a list in 'tokens', got 3"),
        ((["a"], ["O", None]), "has no label"),
    ],
)
def test_bad_rows_are_refused(tmp_path, row, message):
    # twice, so that neither split is without it
    with pytest.raises(TaskError, match=message):
        load(written(tmp_path / "train.jsonl", [*ROWS, row]), dev_fraction=0.05)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return BertTokenizer.from_pretrained(tiny_folder)


def test_the_first_token_of_a_word_has_its_label(tokenizer):
    kind = TokenClassification(NAMES)
    split = Split((("tom", "\u200b", "is"), ("a",)), ((0, 1, 2), (2,)))
    first, second = kind.tokenize(split, tokenizer, max_length=16)
    expected = [IGNORED, 0, IGNORED, IGNORED, 1, 2, IGNORED, IGNORED]
    assert first["labels"] == expected
    assert tokenizer.convert_ids_to_tokens(first["input_ids"])[4] == "[UNK]"
    batch = kind.collate([first, second], tokenizer)
    assert batch["labels"][1].tolist() == [IGNORED, 2] + [IGNORED] * 6
    assert kind.num_terms([first, second]) == 4


def test_words_that_are_cut_off_count_as_outside(tokenizer):
    kind = TokenClassification(NAMES)
    split = Split((("tom", "tom"),), ((0, 0),))
    (example,) = kind.tokenize(split, tokenizer, max_length=5)
    assert kind.num_terms([example]) == 1
    outputs = [np.array([[2.0, 0.0, 0.0]])]
    found = kind.evaluate(outputs, split.labels, Metric(("span_f1", "token_accuracy")))
    assert found.measures == {"span_f1": pytest.approx(2 / 3), "token_accuracy": 0.5}
    assert found.loss == pytest.approx(np.log(1 + 2 * np.exp(-2)))
    with pytest.raises(TaskError, match="for each of 1 sentences logits"):
        kind.evaluate([np.zeros((3, 3))], split.labels, Metric(("span_f1",)))


def test_the_constant_is_the_commonest_tag():
    kind = TokenClassification(NAMES)
    train = Split((("a", "b", "c"),), ((2, 2, 0),))
    found = kind.evaluate(kind.constant(train, train), train.labels, Metric(("token_accuracy",)))
    assert found.score == pytest.approx(2 / 3)
