"""The options that several commands share: a recipe, flag by flag.

Each flag carries the name of the field of `peft_autoconfig.recipe.Recipe` that it sets (a test
compares the two). A flag that is not given leaves the field to the configuration file, then to the
run folder, then to the default of the recipe, so all are None here.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["DATA", "RECIPE", "REPORT", "SEARCH", "TRAINING", "Given", "takes"]

# What was given of a recipe: the names of its fields, and the values.
Given = dict[str, Any]


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise typer.BadParameter("expected one value or several with commas between them")
    return words


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers with commas between them: {error}") from error


def _counts(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"expected counts with commas between them: {error}") from error


def _option(panel: str, help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, show_default=False, **more)


_LEARN, _TRAIN = "What to learn", "How each configuration is trained"
_SEARCH, _REPORT = "The search", "The report after the search"

DATA: dict[str, Any] = {
    "model": Annotated[
        str | None,
        _option(
            _LEARN, "Hub id or folder. (Default: all-MiniLM-L6-v2 from PyPI, to try things out.)"
        ),
    ],
    "task": Annotated[
        str | None,
        _option(
            _LEARN,
            "A GLUE or SuperGLUE task, trec, cr, or the embedded one, which needs no network. "
            "(Default: the embedded one.)",
        ),
    ],
    "data_dir": Annotated[
        str | None, _option(_LEARN, "Folder of parquet files, to work without the Hub.")
    ],
    "train_file": Annotated[
        str | None, _option(_LEARN, "CSV, JSON or parquet file of your own, instead of a task.")
    ],
    "validation_file": Annotated[
        str | None, _option(_LEARN, "Examples to report on. (Default: held out of --train-file.)")
    ],
    "kind": Annotated[
        str | None,
        _option(
            _LEARN,
            "What --train-file asks of the model: classification, regression, multiple-choice, "
            "token-classification, language-modelling, completion (decoders) or seq2seq "
            "(encoder-decoders). (Default: by its labels one of the first two.)",
            metavar="KIND",
        ),
    ],
    "text_columns": Annotated[
        str | None,
        _option(
            _LEARN,
            "Columns of --train-file, with commas between: one or two texts; a question and its "
            "choices; the words. (Default: text; question,choice1,choice2; tokens; prompt; "
            "source.)",
            parser=_words,
            metavar="NAME[,NAME]",
        ),
    ],
    "label_column": Annotated[
        str | None,
        _option(
            _LEARN,
            "Label column of --train-file. (Default: label; tags of words; completion; target.)",
        ),
    ],
    "metric": Annotated[
        str | None,
        _option(
            _LEARN,
            "What to score by on --train-file; of several the mean: accuracy, f1, macro_f1, "
            "matthews; pearson, spearman; span_f1, token_accuracy; exact_match, log_likelihood. "
            "(Default: the first of the kind.)",
            parser=_words,
            metavar="NAME[,NAME]",
        ),
    ],
    "max_train_examples": Annotated[
        int | None, _option(_LEARN, "Train on so many examples only.", min=1)
    ],
}

TRAINING: dict[str, Any] = {
    "epochs": Annotated[float | None, _option(_TRAIN, "Passes over the data. (Default: 3.)")],
    "max_steps": Annotated[int | None, _option(_TRAIN, "Optimiser steps at most.", min=1)],
    "batch_size": Annotated[
        int | None, _option(_TRAIN, "Examples per step. (Default: 32.)", min=1)
    ],
    "max_length": Annotated[
        int | None, _option(_TRAIN, "Tokens kept of an example. (Default: 128.)", min=1)
    ],
    "micro_batch_size": Annotated[
        int | None,
        _option(
            _TRAIN,
            "Examples at once, of those of a step; a training that runs out of memory halves it "
            "by itself.",
            min=1,
        ),
    ],
    "gradient_checkpointing": Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute activations twice rather than keep them.",
            rich_help_panel=_TRAIN,
            show_default=False,
        ),
    ],
    "seed": Annotated[
        int | None, _option(_TRAIN, "Seed of data, proposals and trainings. (Default: 0.)", min=0)
    ],
}

SEARCH: dict[str, Any] = {
    "trials": Annotated[
        int | None,
        _option(_SEARCH, "Configurations to train. (Default: 40, the embedded task 16.)", min=1),
    ],
    "max_params": Annotated[
        int | None, _option(_SEARCH, "Parameters of a configuration at most.", min=1)
    ],
    "lora_ranks": Annotated[
        str | None,
        _option(
            _SEARCH,
            "Search a low-rank part (LoRA) too, of these ranks, 0 for none: 0,2,8,32.",
            parser=_counts,
            metavar="RANK[,RANK...]",
        ),
    ],
    "lora_modules": Annotated[
        str | None,
        _option(
            _SEARCH,
            "Where the low-rank part goes. (Default: all.)",
            metavar="attention|feed_forward|all",
        ),
    ],
    "learning_rates": Annotated[
        str | None,
        _option(
            _SEARCH,
            "Peak rates to choose from, with commas between. (Default: 1e-3,5e-3,1e-2.)",
            parser=_numbers,
            metavar="RATE[,RATE...]",
        ),
    ],
    "stop_early": Annotated[
        bool | None,
        typer.Option(
            "--stop-early",
            help="Stop trials at a quarter or half of their training that cannot reach the front.",
            rich_help_panel=_SEARCH,
            show_default=False,
        ),
    ],
    "warm_start": Annotated[
        str | None,
        _option(
            _SEARCH,
            "Run folders of searches of other tasks on the same base model, to start from what "
            "they found.",
            parser=_words,
            metavar="RUN[,RUN...]",
        ),
    ],
    "max_hours": Annotated[
        float | None,
        _option(_SEARCH, "Begin no trial later than so many hours after the search began."),
    ],
    "max_training_hours": Annotated[
        float | None,
        _option(_SEARCH, "Train so many hours at most, summed over all processes and machines."),
    ],
    "retries": Annotated[
        int | None,
        _option(
            _SEARCH,
            "Try a configuration so often again if its training breaks off with an error. "
            "(Default: 1.)",
            min=0,
        ),
    ],
    "parallel": Annotated[
        str | None,
        _option(
            _SEARCH,
            "What the processes of an accelerate launch do: trials, each trains its own; data, "
            "all train one together, each on its share of every batch, which larger models need. "
            "(Default: trials.)",
            metavar="trials|data",
        ),
    ],
    "storage": Annotated[
        str | None,
        _option(
            _SEARCH,
            "PostgreSQL data base for the trials, to search from several machines: "
            "postgresql+psycopg2://USER@HOST/DATABASE. The password belongs in "
            "PEFT_AUTOCONFIG_STORAGE_PASSWORD.",
            metavar="URL",
        ),
    ],
}

REPORT: dict[str, Any] = {
    "report_seeds": Annotated[
        int | None,
        _option(
            _REPORT,
            "Trainings with new seeds of each front member and each hand-made choice, scored on "
            "data that the search has not seen. 0 leaves the report out. (Default: 2.)",
            min=0,
        ),
    ],
    "front_members": Annotated[
        int | None, _option(_REPORT, "Members to train and save. (Default: all.)", min=1)
    ],
}

RECIPE = DATA | TRAINING | SEARCH | REPORT

_FILE = Annotated[
    Path | None,
    _option(
        _LEARN,
        "YAML, TOML or JSON file with any of these options by name (max_steps: 100). Flags go "
        "before it.",
        metavar="FILE",
    ),
]


def takes(options: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that gives a command the options, and `--config` for a file of them.

    The command gets them as two arguments: ``given``, those that were given, and ``config``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            given = {n: values.pop(n) for n in options if n in values}
            given = {name: value for name, value in given.items() if value is not None}
            command(given=given, **values)

        wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p for name, p in own.items() if name not in ("given", "config")]
            + _parameters({"config": _FILE, **options}.items())
        )
        return wrapped

    return decorate


def _parameters(options: Iterable[tuple[str, Any]]) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=None, annotation=annotation)
        for name, annotation in options
    ]
