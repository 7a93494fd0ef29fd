"""Makes a `Task` of a name or of files: the front door of `tasks`.

Named data come from the Hub, or offline from a folder of parquet files; the embedded task is
generated. All take the same road: a training and a reporting table, labels read by the training
table, a search-dev split held out of the training set by seed.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import datasets

from ..errors import TaskError
from .catalogue import CATALOGUE, Entry, entry, parquet_files
from .holdout import Division, keep
from .labels import Labels
from .metric import Metric
from .questions import EMBEDDED, LABEL_NAMES, load_questions
from .table import Table, from_dataset, read_table
from .task import Kind, Split, Task

__all__ = ["load_files_task", "load_task", "task_names"]

logger = logging.getLogger(__name__)

PathLike = str | Path


def task_names() -> list[str]:
    """Returns the names that `load_task` knows, the embedded task first."""
    return [EMBEDDED, *CATALOGUE]


def load_task(
    name: str = EMBEDDED,
    *,
    data_dir: PathLike | None = None,
    dev_fraction: float = 0.2,
    max_dev_examples: int | None = 1000,
    max_train_examples: int | None = None,
    seed: int = 0,
) -> Task:
    """Returns a task by name.

    Training examples whose exact texts are in the reporting split are left out, so is every
    duplicate of a search-dev text. COPA becomes sentence pairs (premise and question, choice) and
    is scored by how often the right choice gets the larger margin, as its accuracy is defined.

    Args:
        name: One of `task_names`.
        data_dir: Folder of parquet files to read offline instead of the Hub.
        dev_fraction: Share of the training set to compare trials on (0, 1).
        max_dev_examples: Most examples of that, None for no limit; 1000 keep the standard error
            of an accuracy below .016.
        max_train_examples: Train on so many, by class share; None for all.
        seed: Seed of the division. The embedded task brings its own search-dev split; seed and
            sizes only choose among its examples there.

    Raises:
        TaskError: If the name is unknown or the data are missing or unfit.
    """
    division = Division(dev_fraction, max_dev_examples, max_train_examples, seed)
    if name == EMBEDDED:
        return _embedded(division)
    facts = entry(name, EMBEDDED)
    train, test, column = _named_tables(facts, name, data_dir)
    kind: Kind = "classification" if facts.label_names else "regression"
    labels = Labels.of(train, column, kind=kind, names=facts.label_names)
    rest, dev, test_split = division.divide(
        _split(train, facts.text_columns, labels),
        _split(test, facts.text_columns, labels),
        kind=kind,
        pairs=facts.num_choices > 1,
    )
    return Task(
        name=name,
        source="the Hub" if data_dir is None else str(data_dir),
        text_columns=facts.text_columns,
        kind=kind,
        label_names=labels.names,
        metric=Metric(facts.measures),
        train=rest,
        dev=dev,
        test=test_split,
        seed=seed,
        num_choices=facts.num_choices,
    )


def load_files_task(
    train_file: PathLike,
    validation_file: PathLike | None = None,
    *,
    text_columns: Sequence[str],
    label_column: str,
    kind: Kind | None = None,
    measures: Sequence[str] | None = None,
    name: str | None = None,
    dev_fraction: float = 0.2,
    max_dev_examples: int | None = 1000,
    max_train_examples: int | None = None,
    seed: int = 0,
) -> Task:
    """Returns a task of CSV, TSV, JSON, JSON-lines or parquet files.

    Args:
        train_file: Examples to train on and to hold the search-dev split out of.
        validation_file: Examples to report on; None holds `dev_fraction` of the training file out
            for that too.
        text_columns: Names of one or two text columns.
        label_column: Name of the label column.
        kind: ``classification`` or ``regression``; None infers it from the labels: numbers with a
            fraction are a regression, all else are classes.
        measures: Names of measures (see `Metric`); None takes accuracy, or Pearson and Spearman
            correlation in a regression.
        name: Name of the task; None takes the training file's.
        dev_fraction: As in `load_task`.
        max_dev_examples: As in `load_task`.
        max_train_examples: As in `load_task`.
        seed: As in `load_task`.

    Raises:
        TaskError: If a file, column or label is missing or unfit.
    """
    division = Division(dev_fraction, max_dev_examples, max_train_examples, seed)
    columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
    table = read_table(Path(train_file))
    labels = Labels.of(table, label_column, kind=kind)
    test = None
    if validation_file is not None:
        test = _split(read_table(Path(validation_file)), columns, labels)
    train, dev, test = division.divide(
        _split(table, columns, labels), test, kind=labels.kind, pairs=False
    )
    default = ("pearson", "spearman") if labels.kind == "regression" else ("accuracy",)
    return Task(
        name=name or Path(train_file).stem,
        source=str(train_file),
        text_columns=columns,
        kind=labels.kind,
        label_names=labels.names,
        metric=Metric(tuple(measures or default)),
        train=train,
        dev=dev,
        test=test,
        seed=seed,
    )


def _split(table: Table, text_columns: tuple[str, ...], labels: Labels) -> Split:
    if len(text_columns) not in (1, 2):
        raise TaskError(f"expected one or two text columns, got {list(text_columns)}")
    columns = [table.column(name) for name in text_columns]
    texts = tuple(zip(*columns, strict=True))
    for row, values in enumerate(texts):
        if not all(isinstance(value, str) for value in values):
            raise TaskError(
                f"{table.source}, example {row}: expected text in {list(text_columns)}, got "
                f"{list(values)}"
            )
    num_blank = sum(not any(map(str.strip, values)) for values in texts)
    if num_blank:
        logger.warning("%s: %d of %d texts are blank", table.source, num_blank, len(texts))
    return Split(texts, labels.encode(table))


def _named_tables(facts: Entry, name: str, data_dir: PathLike | None) -> tuple[Table, Table, str]:
    """The training and reporting tables of a named task, and their label column."""
    column = facts.label_column
    if data_dir is None:
        train, test = _download(facts, name)
        column = facts.hub_label_column or column
    else:
        train, test = (read_table(*files) for files in parquet_files(facts, name, Path(data_dir)))
    if facts.prepare:
        train, test = facts.prepare(train), facts.prepare(test)
    return train, test, column


def _download(facts: Entry, name: str) -> tuple[Table, Table]:
    """The training and reporting tables from the Hub, or from its cache on this machine."""
    source = "/".join(filter(None, (facts.hub, facts.hub_config)))
    try:
        parts = datasets.load_dataset(facts.hub, facts.hub_config)
    except Exception as error:  # the Hub client raises a dozen unrelated types
        raise TaskError(
            f"task {name!r} could not be loaded from the Hub as {source} "
            f"({type(error).__name__}: {error}); check the connection, or pass data_dir "
            f"(--data-dir), a folder that holds {facts.folder}/train.parquet and "
            f"{facts.folder}/{facts.test_file}.parquet"
        ) from error
    for split in ("train", facts.hub_test):
        if split not in parts:
            raise TaskError(f"{source} has no split {split!r}; its splits are {sorted(parts)}")
    return from_dataset(parts["train"], source), from_dataset(parts[facts.hub_test], source)


def _embedded(division: Division) -> Task:
    """The generated task, which brings a search-dev split of other words and templates."""
    splits = load_questions()
    dev = splits["dev"]
    return Task(
        name=EMBEDDED,
        source="generated by peft_autoconfig",
        text_columns=("text",),
        kind="classification",
        label_names=LABEL_NAMES,
        metric=Metric(),
        train=division.keep(splits["train"], "classification"),
        dev=keep(
            dev,
            max_examples=division.max_dev_examples,
            seed=division.seed,
            kind="classification",
        ),
        test=splits["test"],
        seed=division.seed,
    )
