"""The honest table: methods trained by one plan, over several seeds, scored on the test split.

The search has seen the dev split and one seed only. Here each method gets its learning rate by the
same rule (the best on dev among the rates it may choose from, by the search's seed), is trained
with seeds that the search did not use, and meets the test split. Every training is stored as soon
as it is done, so an interrupted comparison goes on where it was.

Imports `errors`, `run` and `training`; imported by `front`.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from peft import PeftModel
from torch import nn

from ..errors import ConfigError, RunError
from ..run.json_file import damaged, plain, read_json, write_json
from ..training import Training
from ..training.method import method_text
from ..training.pretrained import Method

__all__ = [
    "Comparison",
    "Evaluated",
    "Row",
    "TableStep",
    "count_trainings",
    "markdown_table",
    "save_adapter",
]

FORMAT = 1

# method, learning rate, seed, whether the test split was met
Key = tuple[str, float, int, bool]


@dataclass(frozen=True)
class Evaluated:
    """One training of the comparison.

    Attributes:
        method: What was trained, as text that tells it from others.
        learning_rate: Peak rate.
        seed: Seed of the training.
        num_params: Trained parameters, head left out.
        dev: Score on the search-dev split.
        loss: Loss on the search-dev split, None if not finite.
        test: Score on the report-test split; None where only a rate was being chosen.
        seconds: Wall-clock seconds of training and evaluating.
    """

    method: str
    learning_rate: float
    seed: int
    num_params: int
    dev: float
    loss: float | None
    test: float | None
    seconds: float

    @property
    def key(self) -> Key:
        """What tells it from every other training of the comparison."""
        return (self.method, self.learning_rate, self.seed, self.test is not None)


@dataclass(frozen=True)
class TableStep:
    """A training that the table now has, for whoever watches it grow.

    Attributes:
        name: Name of the method in the table.
        evaluated: What the training gave.
        is_new: Whether it was trained now; else it was stored.
        done: Trainings that the table now has.
        total: Trainings that it will have; None if nobody said.
    """

    name: str
    evaluated: Evaluated
    is_new: bool
    done: int
    total: int | None


@dataclass(frozen=True)
class Row:
    """One line of the table: a method at its learning rate, over the seeds.

    Attributes:
        name: Name of the method.
        num_params: Trained parameters, head left out.
        learning_rate: The chosen peak rate; None for a predictor that is not trained.
        scores: Test score of each seed.
        trial: Number of the trial that proposed it; None for a baseline.
    """

    name: str
    num_params: int
    learning_rate: float | None
    scores: tuple[float, ...]
    trial: int | None = None

    @property
    def score(self) -> float:
        """Mean test score over the seeds."""
        return mean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test score over the seeds; None of a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else None


class Comparison:
    """Trains methods over seeds and remembers every result in a file.

    Args:
        training: How methods are trained, and on what.
        file: JSON file of the results; may hold earlier ones of the same training.
        seeds: Seeds of the reported trainings, at least one, none of them the search's.
        total: Trainings that all rows will take, kept in the file for those who watch; None if
            unknown.
        notify: Called with each training that a row has, trained now or stored.

    Raises:
        ConfigError: There are no seeds, or the search's is among them.
        RunError: The file is of another training or unreadable.
    """

    def __init__(
        self,
        training: Training,
        file: str | os.PathLike[str],
        *,
        seeds: Sequence[int] = (1, 2, 3),
        total: int | None = None,
        notify: Callable[[TableStep], None] = lambda _: None,
    ) -> None:
        if not seeds or training.seed in seeds:
            raise ConfigError(
                f"Expected at least one seed and none equal to the search's ({training.seed}), "
                f"whose scores were chosen to be high; got {list(seeds)}."
            )
        self.training, self.file, self.seeds = training, Path(file), tuple(seeds)
        self._total, self._done = total, 0
        self._notify = notify
        self._about = plain(training.about())
        self._results = self._read()

    def row(
        self,
        name: str,
        method: Method,
        learning_rates: Sequence[float],
        *,
        trial: int | None = None,
        save_to: Path | None = None,
    ) -> Row:
        """Returns the method's row of the table, training what is not stored yet.

        Args:
            name: Name of the method in the table.
            method: A PEFT configuration or one of `pretrained`'s methods without one.
            learning_rates: Rates to choose from by the dev score, at least one.
            trial: Number of the trial that proposed the method.
            save_to: Folder for the adapter of the seed that is best on dev, if it is to be kept.
        """
        rate = learning_rates[0]
        if len(learning_rates) > 1:
            rate = self._choose_rate(name, method, learning_rates)
        evaluated = self._over_seeds(name, method, rate, save_to)
        scores = tuple(result.test for result in evaluated if result.test is not None)
        return Row(name, evaluated[0].num_params, rate, scores, trial)

    def _over_seeds(
        self, name: str, method: Method, rate: float, save_to: Path | None
    ) -> list[Evaluated]:
        evaluated: list[Evaluated] = []
        anew = save_to is not None and not save_to.is_dir()
        for seed in self.seeds:
            stored = None if anew else self._results.get(_key(method, rate, seed, test=True))
            result = stored
            if result is None:
                model, result = self._train(method, rate, seed, test=True)
                # the adapter before the result, since what is stored is not trained again
                if save_to and all(_rank(result) > _rank(earlier) for earlier in evaluated):
                    save_adapter(model, save_to)
                self._store(result)
            self._tell(name, result, is_new=stored is None)
            evaluated.append(result)
        return evaluated

    def _choose_rate(self, name: str, method: Method, rates: Sequence[float]) -> float:
        tried = []
        for rate in rates:
            stored = self._results.get(_key(method, rate, self.training.seed, test=False))
            result = stored
            if result is None:
                _, result = self._train(method, rate, self.training.seed, test=False)
                self._store(result)
            self._tell(name, result, is_new=stored is None)
            tried.append(result)
        return max(tried, key=_rank).learning_rate

    def _train(
        self, method: Method, rate: float, seed: int, *, test: bool
    ) -> tuple[nn.Module, Evaluated]:
        started = time.perf_counter()
        model = self.training.train(method, learning_rate=rate, seed=seed)
        dev = self.training.evaluate(model, "dev")
        result = Evaluated(
            method=method_text(method),
            learning_rate=rate,
            seed=seed,
            num_params=self.training.pretrained.num_params(model),
            dev=dev.score,
            loss=dev.loss,
            test=self.training.evaluate(model, "test").score if test else None,
            seconds=time.perf_counter() - started,
        )
        return model, result

    def _store(self, result: Evaluated) -> None:
        self._results[result.key] = result
        write_json(
            self.file,
            {
                "format": FORMAT,
                "about": self._about,
                "total": self._total,
                "evaluations": [asdict(result) for result in self._results.values()],
            },
        )

    def _tell(self, name: str, result: Evaluated, *, is_new: bool) -> None:
        self._done += 1
        self._notify(TableStep(name, result, is_new, self._done, self._total))

    def _read(self) -> dict[Key, Evaluated]:
        if not self.file.exists():
            return {}
        stored = read_json(self.file)
        try:
            if stored["format"] != FORMAT or stored["about"] != self._about:
                raise RunError(
                    f"{self.file} holds results of another model, task or plan; move it away or "
                    "give another folder."
                )
            results = [Evaluated(**fields) for fields in stored["evaluations"]]
        except (KeyError, TypeError) as error:
            raise damaged(self.file, f"it is no list of evaluations ({error})") from error
        return {result.key: result for result in results}


def count_trainings(file: str | os.PathLike[str]) -> tuple[int, int | None] | None:
    """Returns how many trainings a comparison's file holds, and how many it will; None without it.

    Raises:
        RunError: The file is damaged.
    """
    file = Path(file)
    if not file.exists():
        return None
    stored = read_json(file)
    try:
        total = stored.get("total")
        return len(stored["evaluations"]), total if isinstance(total, int) else None
    except (AttributeError, KeyError, TypeError) as error:
        raise damaged(file, f"it is no list of evaluations ({error})") from error


def markdown_table(rows: Sequence[Row], metric: str, num_base_params: int) -> str:
    """Returns the rows as a Markdown table, the fewest parameters first.

    Args:
        rows: The methods.
        metric: Name of the score.
        num_base_params: Parameters of the base model, of which the shares are stated.
    """
    lines = [
        f"| method | parameters | % | learning rate | test {metric} | sd | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row.num_params, row.score)):
        rate = "" if row.learning_rate is None else f"{row.learning_rate:g}"
        deviation = "" if row.deviation is None else f"{row.deviation:.4f}"
        lines.append(
            f"| {row.name} | {row.num_params:,} | {100 * row.num_params / num_base_params:.2f} "
            f"| {rate} | {row.score:.4f} | {deviation} | {len(row.scores)} |"
        )
    return "\n".join(lines)


def _key(method: Method, rate: float, seed: int, *, test: bool) -> Key:
    return (method_text(method), rate, seed, test)


def _rank(result: Evaluated) -> tuple[float, float]:
    return (result.dev, -math.inf if result.loss is None else -result.loss)


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Saves an adapter as a whole: a crash leaves the folder absent or complete.

    Raises:
        ConfigError: The model is no PEFT model.
    """
    if not isinstance(model, PeftModel):
        raise ConfigError(f"Expected a PEFT model to save in {folder}, got {type(model).__name__}.")
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
