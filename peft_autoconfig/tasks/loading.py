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
from .classification import Classification, Regression
from .holdout import Division, keep
from .kind import Kind
from .kinds import kind_named
from .labels import are_values
from .metric import Metric
from .questions import EMBEDDED, LABEL_NAMES, load_questions
from .split import Split
from .table import Table, from_dataset, read_table
from .task import Task

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
    duplicate of a search-dev text.

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
    kind, split_of = facts.kind.read(train, facts.text_columns, column, names=facts.label_names)
    rest, dev, test_split = division.divide(
        _warned(split_of(train), train.source), _warned(split_of(test), test.source), kind=kind
    )
    return Task(
        name=name,
        source="the Hub" if data_dir is None else str(data_dir),
        text_columns=facts.text_columns,
        kind=kind,
        metric=Metric(facts.measures),
        train=rest,
        dev=dev,
        test=test_split,
        seed=seed,
    )


def load_files_task(
    train_file: PathLike,
    validation_file: PathLike | None = None,
    *,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    kind: str | None = None,
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
        text_columns: Names of the text columns; None takes those that the kind expects.
        label_column: Name of the label column; None takes the one that the kind expects.
        kind: Name of a `Kind` (see `KINDS`); None infers it from the labels: numbers with a
            fraction are a regression, all else are classes.
        measures: Names of measures (see `Metric`); None takes those of the kind.
        name: Name of the task; None takes the training file's.
        dev_fraction: As in `load_task`.
        max_dev_examples: As in `load_task`.
        max_train_examples: As in `load_task`.
        seed: As in `load_task`.

    Raises:
        TaskError: If a file, column or label is missing or unfit.
    """
    division = Division(dev_fraction, max_dev_examples, max_train_examples, seed)
    table = read_table(Path(train_file))
    chosen, columns, column = _roles(table, kind, text_columns, label_column)
    read, split_of = chosen.read(table, columns, column)
    test = None
    if validation_file is not None:
        validation = read_table(Path(validation_file))
        test = _warned(split_of(validation), validation.source)
    whole = _warned(split_of(table), table.source)
    train, dev, test = division.divide(whole, test, kind=read)
    return Task(
        name=name or Path(train_file).stem,
        source=str(train_file),
        text_columns=columns,
        kind=read,
        metric=Metric(tuple(measures or read.default_measures)),
        train=train,
        dev=dev,
        test=test,
        seed=seed,
    )


def _roles(
    table: Table, kind: str | None, text_columns: Sequence[str] | None, label_column: str | None
) -> tuple[type[Kind], tuple[str, ...], str]:
    """The kind of a task and its columns, as they are said or as is usual."""
    if kind is None:
        is_value = are_values(table, label_column or Classification.label_column)
        chosen: type[Kind] = Regression if is_value else Classification
    else:
        chosen = kind_named(kind)
    columns = chosen.text_columns if text_columns is None else text_columns
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    return chosen, columns, label_column or chosen.label_column


def _warned(split: Split, source: str) -> Split:
    """Returns the split, after a warning if texts of it are blank."""
    num_blank = sum(not any(map(str.strip, texts)) for texts in split.texts)
    if num_blank:
        logger.warning("%s: %d of %d texts are blank", source, num_blank, len(split))
    return split


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
    kind = Classification(LABEL_NAMES)
    dev = splits["dev"]
    return Task(
        name=EMBEDDED,
        source="generated by peft_autoconfig",
        text_columns=("text",),
        kind=kind,
        metric=Metric(),
        train=division.keep(splits["train"], kind),
        dev=keep(
            dev,
            max_examples=division.max_dev_examples,
            seed=division.seed,
            kind=kind,
        ),
        test=splits["test"],
        seed=division.seed,
    )
