"""The tasks known by name: where their data are, which columns matter, how they are scored.

A row of facts per data set of GLUE, SuperGLUE and two more, in the column names and label ids of
the Hub. `test` is the split with public labels, which serves to report.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import TaskError
from .classification import Classification, Regression
from .kind import Kind
from .multiple_choice import MultipleChoice
from .table import Table

__all__ = ["CATALOGUE", "Entry", "entry"]


@dataclass(frozen=True)
class Entry:
    """Facts about one named data set.

    Attributes:
        folder: Folder of its parquet files below a data folder, such as ``glue/rte``.
        hub: Name on the Hub.
        hub_config: Configuration on the Hub, or None.
        text_columns: Its text columns after `prepare`.
        label_names: Class names in the order of their ids; empty where there are none.
        measures: Its official measures.
        label_column: Name of the label column.
        hub_label_column: The same on the Hub, where that differs.
        test_file: Stem of the parquet file that serves to report.
        hub_test: Split on the Hub that serves to report.
        prepare: Makes plain text columns of other columns, or None.
        kind: Kind of the task.
    """

    folder: str
    hub: str
    hub_config: str | None
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    measures: tuple[str, ...] = ("accuracy",)
    label_column: str = "label"
    hub_label_column: str | None = None
    test_file: str = "validation"
    hub_test: str = "validation"
    prepare: Callable[[Table], Table] | None = None
    kind: type[Kind] = Classification


def _glue(config: str, columns: str, labels: str, measures: str = "accuracy") -> Entry:
    return Entry(
        folder=f"glue/{config}",
        hub="nyu-mll/glue",
        hub_config=config,
        text_columns=tuple(columns.split()),
        label_names=tuple(labels.split()),
        measures=tuple(measures.split("+")),
        hub_test="validation_matched" if config == "mnli" else "validation",
        test_file="validation_matched" if config == "mnli" else "validation",
        kind=Classification if labels else Regression,
    )


def _super_glue(
    config: str,
    columns: str,
    labels: str,
    measures: str = "accuracy",
    *,
    prepare: Callable[[Table], Table] | None = None,
    kind: type[Kind] = Classification,
) -> Entry:
    return Entry(
        folder=f"super_glue/{config}",
        hub="aps/super_glue",
        hub_config=config,
        text_columns=tuple(columns.split()),
        label_names=tuple(labels.split()),
        measures=tuple(measures.split("+")),
        prepare=prepare,
        kind=kind,
    )


def _marked(table: Table) -> Table:
    """WiC: the word in question stands between asterisks in both sentences."""

    def mark(text: str, start: int, end: int) -> str:
        return f"{text[:start]}* {text[start:end]} *{text[end:]}"

    columns = dict(table.columns)
    for number in ("1", "2"):
        parts = (table.column(f"{name}{number}") for name in ("sentence", "start", "end"))
        columns[f"sentence{number}"] = [mark(*part) for part in zip(*parts, strict=True)]
    return Table(table.source, columns, table.class_names)


_COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}


def _asked(table: Table) -> Table:
    """COPA: the premise and what is asked about it are one text, before the choices."""
    pairs = zip(table.column("premise"), table.column("question"), strict=True)
    premises = [f"{premise} {_COPA_QUESTIONS[question]}" for premise, question in pairs]
    return Table(table.source, {**table.columns, "premise": premises})


CATALOGUE: dict[str, Entry] = {
    "ag_news": Entry(
        folder="other/ag_news",
        hub="fancyzhx/ag_news",
        hub_config=None,
        text_columns=("text",),
        label_names=("World", "Sports", "Business", "Sci/Tech"),
        hub_test="test",
    ),
    "boolq": _super_glue("boolq", "question passage", "False True"),
    "cb": _super_glue(
        "cb", "premise hypothesis", "entailment contradiction neutral", "accuracy+macro_f1"
    ),
    "cola": _glue("cola", "sentence", "unacceptable acceptable", "matthews"),
    "copa": _super_glue("copa", "premise choice1 choice2", "", prepare=_asked, kind=MultipleChoice),
    "cr": Entry(
        "other/cr", "SetFit/CR", None, ("text",), ("negative", "positive"), hub_test="test"
    ),
    "mnli": _glue("mnli", "premise hypothesis", "entailment neutral contradiction"),
    "mrpc": _glue("mrpc", "sentence1 sentence2", "not_equivalent equivalent", "accuracy+f1"),
    "qnli": _glue("qnli", "question sentence", "entailment not_entailment"),
    "qqp": _glue("qqp", "question1 question2", "not_duplicate duplicate", "accuracy+f1"),
    "rte": _glue("rte", "sentence1 sentence2", "entailment not_entailment"),
    "sst2": _glue("sst2", "sentence", "negative positive"),
    "stsb": _glue("stsb", "sentence1 sentence2", "", "pearson+spearman"),
    "subj": Entry(
        "other/subj", "SetFit/subj", None, ("text",), ("objective", "subjective"), hub_test="test"
    ),
    "trec": Entry(
        folder="other/trec",
        hub="SetFit/TREC-QC",
        hub_config=None,
        text_columns=("text",),
        label_names=("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        label_column="coarse_label",
        hub_label_column="label_coarse_original",
        hub_test="test",
    ),
    "wic": _super_glue("wic", "sentence1 sentence2", "False True", prepare=_marked),
    "wnli": _glue("wnli", "sentence1 sentence2", "not_entailment entailment"),
}


def entry(name: str, *others: str) -> Entry:
    """Returns the facts of a task.

    Args:
        name: Its name.
        others: Further names that exist, for the message.

    Raises:
        TaskError: If there is no such task.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    names = sorted([*CATALOGUE, *others])
    close = difflib.get_close_matches(name.lower(), names, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise TaskError(
        f"unknown task {name!r}; {hint}expected one of {names}, or use load_files_task for files "
        "of your own"
    )


def parquet_files(facts: Entry, name: str, data_dir: Path) -> tuple[list[Path], list[Path]]:
    """Returns the training and the reporting files of a task below a data folder.

    The folder may be the root of all (``<data_dir>/glue/rte``), of one collection
    (``<data_dir>/rte``) or the task's own; a split is one file ``train.parquet`` or the parts
    ``train-00000-of-00002.parquet`` that the Hub stores.

    Raises:
        TaskError: If the folder, the task in it or a split is missing.
    """
    if not data_dir.is_dir():
        raise TaskError(f"there is no folder {data_dir}; expected one with {facts.folder}/ in it")
    candidates = [data_dir / facts.folder, data_dir / Path(facts.folder).name]
    if data_dir.name not in CATALOGUE or data_dir.name == name:
        candidates.append(data_dir)
    for folder in candidates:
        train = _parts(folder, "train")
        if train:
            test = _parts(folder, facts.test_file) or _parts(folder, "validation")
            if not test:
                raise TaskError(f"{folder} has a train split but no {facts.test_file}.parquet")
            return train, test
    looked = ", ".join(str(folder / "train.parquet") for folder in candidates)
    raise TaskError(f"{data_dir} holds no data for task {name!r}; looked for {looked}")


def _parts(folder: Path, split: str) -> list[Path]:
    return sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-[0-9]*.parquet")])
