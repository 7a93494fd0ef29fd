"""Tasks of files and of names: formats, inference, layouts, and one clear error per bad input."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peft_autoconfig.errors import TaskError
from peft_autoconfig.tasks import load_files_task, load_task, task_names

ROWS = [{"text": f"sentence {i}", "kind": "odd" if i % 2 else "even"} for i in range(40)]
FORMATS = ["csv", "tsv", "json", "jsonl", "parquet"]


def write(path, rows):
    names = list(rows[0]) if rows else []
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [names, *([str(row[name]) for name in names] for row in rows)]
        path.write_text("".join(separator.join(line) + "\n" for line in lines))
    return path


def load(train, validation=None, **changes):
    options = {"text_columns": ["text"], "label_column": "kind"} | changes
    return load_files_task(train, validation, **options)


def labelled(labels):
    return [{"text": f"sentence {i}", "kind": label} for i, label in enumerate(labels)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_task(tmp_path, suffix):
    train = write(tmp_path / f"train.{suffix}", ROWS)
    other = [{"text": f"other {i}", "kind": "odd"} for i in range(5)]
    validation = write(tmp_path / f"validation.{suffix}", other)
    task = load(train, validation)
    assert (task.name, task.kind.name, task.label_names) == (
        "train",
        "classification",
        ("even", "odd"),
    )
    assert task.about()["sizes"] == {"train": 32, "dev": 8, "test": 5}
    assert task.test.texts[0] == ("other 0",)
    assert task.test.labels == (1,) * 5
    assert sorted(task.dev.labels) == [0] * 4 + [1] * 4
    assert task.about() == load(train, validation).about()


def test_without_a_validation_file_the_report_split_is_held_out_too(tmp_path):
    task = load(write(tmp_path / "train.csv", ROWS))
    assert task.about()["sizes"] == {"train": 26, "dev": 6, "test": 8}
    parts = [set(split.texts) for split in (task.train, task.dev, task.test)]
    assert len(set.union(*parts)) == 40


def test_two_text_columns_make_pairs(tmp_path):
    rows = [row | {"second": f"answer {i}"} for i, row in enumerate(ROWS)]
    task = load(write(tmp_path / "train.jsonl", rows), text_columns=["text", "second"])
    assert task.text_columns == ("text", "second")
    first, second = task.train.texts[0]
    assert first.split()[1] == second.split()[1]


@pytest.mark.parametrize(
    ("suffix", "labels", "kind", "names"),
    [
        ("csv", [3, 1, 2], "classification", ("1", "2", "3")),
        ("csv", [10, 9, 10], "classification", ("9", "10")),
        ("csv", [0.5, 1, 2.5], "regression", ()),
        ("jsonl", [True, False, True], "classification", ("False", "True")),
        ("jsonl", [1, 0.5, 2], "regression", ()),
        ("csv", ["NA", "None", "null"], "classification", ("NA", "None", "null")),
    ],
)
def test_the_kind_of_task_is_inferred(tmp_path, suffix, labels, kind, names):
    task = load(write(tmp_path / f"train.{suffix}", labelled(labels * 10)))
    assert (task.kind.name, task.label_names) == (kind, names)
    assert task.metric.name == ("accuracy" if names else "pearson+spearman")


@pytest.mark.parametrize("right", [["1", "0", "1"], [1, 0, 1], ["b", "c", "a"]])
def test_the_right_choice_is_told_by_number_or_text(tmp_path, right):
    rows = [
        {"question": f"which {i}?", "choice1": "ac"[i % 3 == 1], "choice2": "bda"[i % 3]}
        | {"label": right[i % 3]}
        for i in range(30)
    ]
    rows = [row | {"choice1": "x"} if row["choice1"] == row["choice2"] else row for row in rows]
    task = load_files_task(write(tmp_path / "train.jsonl", rows), kind="multiple-choice")
    assert task.label_names == ("choice1", "choice2")
    for texts, label in zip(task.train.texts, task.train.labels, strict=True):
        assert label == (1, 0, 1)[int(texts[0][6:-1]) % 3]


def test_a_right_choice_that_is_none_is_refused(tmp_path):
    rows = [{"question": f"{i}?", "choice1": "a", "choice2": "b", "label": "c"} for i in range(9)]
    with pytest.raises(TaskError, match="example 0: expected in 'label' the number of the right"):
        load_files_task(write(tmp_path / "train.jsonl", rows), kind="multiple-choice")


def test_whole_numbers_may_be_said_to_be_a_regression(tmp_path):
    train = write(tmp_path / "train.csv", labelled(range(30)))
    assert load(train, kind="regression").train.labels[:3] != ()
    with pytest.raises(TaskError, match="30 values in 30 examples, too many for classes"):
        load(train)


def test_texts_of_the_report_split_are_not_trained_on(tmp_path):
    train = write(tmp_path / "train.csv", ROWS)
    task = load(train, write(tmp_path / "validation.csv", ROWS[:10]))
    assert not set(task.test.texts) & (set(task.train.texts) | set(task.dev.texts))
    assert task.about()["sizes"] == {"train": 24, "dev": 6, "test": 10}


def test_one_file_for_both_splits_is_refused(tmp_path):
    train = write(tmp_path / "train.csv", ROWS)
    with pytest.raises(TaskError, match="all 40 training texts are in the reporting split too"):
        load(train, train)


def test_blank_texts_are_counted_in_a_warning(tmp_path, caplog):
    rows = [*ROWS, {"text": " ", "kind": "odd"}]
    load(write(tmp_path / "train.csv", rows))
    assert "1 of 41 texts are blank" in caplog.text


def test_quoted_separators_and_byte_order_marks_are_understood(tmp_path):
    lines = ["\ufefftext,kind", *(f'"a, b ""{i}""\nand more",{i % 2}' for i in range(20))]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert ('a, b "7"\nand more',) in load(path).train.texts + load(path).dev.texts + load(
        path
    ).test.texts


BAD_ROWS = [
    (labelled([0, 1, ""] * 10), {}, r"example 2: column 'kind' has no label"),
    (labelled([0, 1, -1] * 10), {}, r"holds -1, the mark of withheld labels"),
    (labelled([4] * 30), {}, r"at least two classes in column 'kind', got \[4\]"),
    (labelled(["a", "b"] * 9 + ["c"]), {}, r"label 2 has 1 text"),
    (labelled(["a", "b"] * 9), {"kind": "regression"}, r"a regression needs numbers, got 'a'"),
    (labelled([0.5, "nan"] * 9), {}, r"example 1: expected a finite number, got nan"),
    (labelled([0, 1] * 9), {"kind": "ranking"}, r"got 'ranking'"),
    (ROWS, {"text_columns": ["sentence"]}, r"no column 'sentence'; its columns are \['kind', 'te"),
    (ROWS, {"label_column": "label"}, r"no column 'label'; its columns are"),
    (ROWS, {"text_columns": []}, r"one or two text columns, got \[\]"),
    (ROWS, {"text_columns": ["text"] * 3}, r"one or two text columns"),
    (ROWS, {"dev_fraction": 1.5}, r"between 0 and 1, got 1.5"),
    (ROWS, {"max_train_examples": 0}, r"max_train_examples must be at least 1"),
    (ROWS, {"measures": ["bleu"]}, r"a metric needs measures"),
    (ROWS, {"measures": ["pearson"]}, r"pearson does not fit a task of classification"),
]


@pytest.mark.parametrize(("rows", "options", "message"), BAD_ROWS)
def test_bad_rows_and_options_are_refused(tmp_path, rows, options, message):
    with pytest.raises(TaskError, match=message):
        load(write(tmp_path / "train.csv", rows), **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.txt", "a", "expected a file ending in one of"),
        ("train.csv", "text,kind\n", "has no rows"),
        ("train.csv", "", "has no rows"),
        ("train.csv", "text,kind\na,b,c\n", r"line 2: expected 2 fields .* got 3"),
        ("train.csv", "text,text\na,b\n", "names a column twice"),
        ("train.json", "{", "cannot be read as json"),
        ("train.json", '{"rows": []}', "expected a list of objects"),
        ("train.jsonl", "[1]\n[2]\n", "example 0: expected an object"),
        ("train.parquet", "no", "cannot be read as parquet"),
        ("train.jsonl", '{"text": 3, "kind": 1}\n{"text": "a", "kind": 0}\n' * 9, "expected text"),
        ("train.jsonl", '{"text": "b", "kind": "x"}\n{"text": "a", "kind": 0}\n', "mixes labels"),
        ("train.jsonl", '{"text": "b"}\n{"text": "a", "kind": 0}\n', "example 0: column 'kind'"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=message):
        load(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"text,kind\n\xff\xfe,1\n")
    with pytest.raises(TaskError, match="cannot be read as csv"):
        load(tmp_path / "train.csv")


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"there is no file .*absent\.csv"):
        load(tmp_path / "absent.csv")
    with pytest.raises(TaskError, match=r"there is no file .*absent\.csv"):
        load(write(tmp_path / "train.csv", ROWS), tmp_path / "absent.csv")


def test_a_label_unknown_in_training_is_refused(tmp_path):
    train = write(tmp_path / "train.csv", ROWS)
    validation = write(tmp_path / "validation.csv", labelled(["even", "strange"]))
    message = r"validation.csv, example 1: label 'strange' is none of the classes \['even', 'odd'\]"
    with pytest.raises(TaskError, match=message):
        load(train, validation)


def write_named(folder, label_names, columns, splits=("train", "validation"), size=20):
    """Parquet files as `datasets` writes them, with class names in their metadata."""
    folder.mkdir(parents=True)
    features = {column: datasets.Value("string") for column in columns}
    features["label"] = (
        datasets.ClassLabel(names=label_names) if label_names else datasets.Value("float32")
    )
    for split in splits:
        rows = {column: [f"{split} {column} {i}" for i in range(size)] for column in columns}
        rows["label"] = [i % (len(label_names) or size) for i in range(size)]
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        pq.write_table(table.data.table, folder / f"{split}.parquet")


PAIR = ("sentence1", "sentence2")


@pytest.mark.parametrize("folder", ["glue/rte", "rte", "."])
def test_named_tasks_are_found_in_every_layout(tmp_path, folder):
    data = tmp_path / "data"
    write_named(data / folder, ["entailment", "not_entailment"], PAIR)
    task = load_task("rte", data_dir=data)
    assert task.label_names == ("entailment", "not_entailment")
    assert task.metric.name == "accuracy"
    assert task.about()["sizes"] == {"train": 16, "dev": 4, "test": 20}


def test_parts_of_a_split_are_joined(tmp_path):
    write_named(tmp_path / "stsb", [], PAIR)
    folder = tmp_path / "stsb"
    (folder / "train.parquet").rename(folder / "train-00000-of-00002.parquet")
    table = pq.read_table(folder / "validation.parquet")
    pq.write_table(table, folder / "train-00001-of-00002.parquet")
    task = load_task("stsb", data_dir=tmp_path)
    # the second part equals the reporting split, so none of it is trained on
    assert task.about()["sizes"] == {"train": 16, "dev": 4, "test": 20}
    assert task.kind.name == "regression"


def test_mnli_reports_on_the_matched_split(tmp_path):
    names = ["entailment", "neutral", "contradiction"]
    splits = ("train", "validation_matched", "validation_mismatched")
    write_named(tmp_path / "mnli", names, ("premise", "hypothesis"), splits)
    task = load_task("mnli", data_dir=tmp_path)
    assert task.test.texts[0][0].startswith("validation_matched")
    assert len(task.label_names) == 3


def write_rows(folder, rows):
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        changed = [{k: f"{split} {v}" if k in FIRST else v for k, v in row.items()} for row in rows]
        pq.write_table(pa.Table.from_pylist(changed), folder / f"{split}.parquet")


FIRST = ("premise", "sentence2")


def test_copa_asks_which_of_two_choices(tmp_path):
    rows = [
        {
            "premise": f"Event {i}.",
            "choice1": "One.",
            "choice2": "Two.",
            "question": ["cause", "effect"][i % 2],
            "label": i // 2 % 2,
        }
        for i in range(20)
    ]
    write_rows(tmp_path / "copa", rows)
    task = load_task("copa", data_dir=tmp_path)
    assert task.kind.name == "multiple-choice"
    assert task.test.texts[:2] == (
        ("validation Event 0. What was the cause?", "One.", "Two."),
        ("validation Event 1. What happened as a result?", "One.", "Two."),
    )
    assert task.test.labels[:8] == (0, 0, 1, 1, 0, 0, 1, 1)
    assert [len(split) for split in (task.train, task.dev)] == [16, 4]
    right = [[1.0 - label, float(label)] for label in task.dev.labels]
    assert task.evaluate(right, task.dev.labels).score == 1.0


def test_wic_marks_the_word(tmp_path):
    rows = [
        {
            "word": "bank",
            "sentence1": f"{i} bank.",
            "sentence2": "a bank",
            "start1": len(f"{i} "),
            "end1": len(f"{i} bank"),
            "start2": 2,
            "end2": 6,
            "label": i % 2,
        }
        for i in range(20)
    ]
    (tmp_path / "wic").mkdir()
    for split in ("train", "validation"):
        shifted = [row | {"sentence1": f"{row['sentence1']} {split}"} for row in rows]
        pq.write_table(pa.Table.from_pylist(shifted), tmp_path / "wic" / f"{split}.parquet")
    task = load_task("wic", data_dir=tmp_path)
    assert task.test.texts[3] == ("3 * bank *. validation", "a * bank *")
    assert task.label_names == ("False", "True")


def test_unknown_names_are_refused_with_close_ones():
    with pytest.raises(TaskError, match=r"unknown task 'mrcp'; did you mean mrpc"):
        load_task("mrcp")
    with pytest.raises(TaskError, match=r"did you mean rte"):
        load_task("RTE")
    assert task_names()[0] == "questions"
    assert {"rte", "mrpc", "cola", "stsb", "wnli", "sst2", "qnli", "qqp", "mnli"} < set(
        task_names()
    )


def test_missing_data_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"there is no folder .*absent; expected one with glue/rte"):
        load_task("rte", data_dir=tmp_path / "absent")
    with pytest.raises(TaskError, match=r"no data for task 'rte'; looked for .*glue/rte/train"):
        load_task("rte", data_dir=tmp_path)
    write_named(tmp_path / "rte", ["entailment", "not_entailment"], PAIR, splits=("train",))
    with pytest.raises(TaskError, match=r"has a train split but no validation\.parquet"):
        load_task("rte", data_dir=tmp_path)


def test_the_folder_of_another_task_is_refused(tmp_path):
    write_named(tmp_path / "mrpc", ["not_equivalent", "equivalent"], PAIR)
    with pytest.raises(TaskError, match=r"no data for task 'rte'"):
        load_task("rte", data_dir=tmp_path / "mrpc")


def test_files_with_other_class_names_are_refused(tmp_path):
    write_named(tmp_path / "rte", ["not_entailment", "entailment"], PAIR)
    with pytest.raises(TaskError, match=r"classes \['not_entailment', 'entailment'\], expected"):
        load_task("rte", data_dir=tmp_path)


def test_without_a_hub_the_error_names_the_way_out(monkeypatch):
    def refuse(*args, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(TaskError, match=r"nyu-mll/glue/rte .*offline.*--data-dir"):
        load_task("rte")


def test_the_hub_is_asked_by_name_and_configuration(monkeypatch):
    asked = []

    def serve(name, config):
        asked.append((name, config))
        rows = [(f"question {i}", ["DESC", "NUM"][i % 2]) for i in range(20)]
        texts, labels = zip(*rows, strict=True)
        part = datasets.Dataset.from_dict({"text": texts, "label_coarse_original": labels})
        other = datasets.Dataset.from_dict({"text": ["new"], "label_coarse_original": ["LOC"]})
        return datasets.DatasetDict(train=part, test=other)

    monkeypatch.setattr(datasets, "load_dataset", serve)
    task = load_task("trec")
    assert asked == [("SetFit/TREC-QC", None)]
    assert task.label_names == ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
    assert task.test.labels == (4,)
    assert set(task.train.labels) == {2, 5}
