"""Found configurations against hand-made ones and full fine-tuning, on real tasks, by one protocol.

    python benchmarks/headline/run.py --data-dir DATA --tasks trec questions

For each task: a search (ours) and a random search of as many trials over the space of the table of
trainings, the members of whose fronts are then trained with a second seed; every hand-made choice
at each of four learning rates; then what was chosen, by the search-dev split, is trained with other
seeds and meets the report-test split. What a
search found on the first task is also trained on the others. Each training is stored as it is done,
the same command goes on, and trials of searches become lines of the table of trainings.
`summarise.py` makes the figures.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import optuna

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "table"))
from collect import default_model, train  # noqa: E402
from table import Run, Table, fidelity_folder, table_space  # noqa: E402

from peft_autoconfig import Outcome, Search, SearchSpace  # noqa: E402
from peft_autoconfig.front.baselines import all_baselines, baseline_rates, constant_predictor  # noqa: E402
from peft_autoconfig.front.comparison import FORMAT as COMPARISON_FORMAT  # noqa: E402
from peft_autoconfig.front.comparison import Comparison, Row  # noqa: E402
from peft_autoconfig.run.json_file import plain  # noqa: E402
from peft_autoconfig.search.trial import TrialRecord  # noqa: E402
from peft_autoconfig.tasks import load_task  # noqa: E402
from peft_autoconfig.training import Training, TrainingPlan  # noqa: E402
from peft_autoconfig.training.method import method_text  # noqa: E402
from peft_autoconfig.training.pretrained import Method  # noqa: E402

RESULTS = HERE / "results"
EVALUATIONS = 2  # points of the learning curve of a trial
SEARCH_SEED, SECOND_SEED = 2, 100  # of a search; of the training that confirms a front's member
MAX_CONFIRMED = 12  # with a search of 40 as many trainings as give hand-made choices their rates
# the shards of the table with the trials; ours and ours1 are of the samplers of 2026-11-28
SHARDS = {"ours": "ours2", "random": "random"}
HAND_MADE_RATES = (1e-3, 2e-3, 5e-3, 1e-2)
WITHOUT_BUDGET = ("linear probe", "full fine-tuning")  # to which no configuration is held
SHARES = (
    0.001,
    0.005,
    0.015,
)  # of the base model's parameters, that a found configuration may have


class RandomSampler(optuna.samplers.RandomSampler):
    """Random search from cheap to dear, over valid points only."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed)
        self._space, self._seed = space, seed

    def infer_relative_search_space(self, study, trial):
        return self._space.distributions

    def sample_relative(self, study, trial, search_space):
        generator = np.random.default_rng([self._seed, trial.number])
        return self._space.decode_params(self._space.sample_stratified(1, generator)[0])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="Hub id or folder; default: all-MiniLM-L6-v2 from PyPI")
    add("--data-dir", help="folder of parquet files; default: the Hub")
    add("--tasks", nargs="+", default=["trec", "questions"], help="the first is transferred from")
    add("--trials", type=int, default=40, help="of each search")
    add("--max-steps", type=int, default=96, help="optimiser steps of each training")
    add("--batch-size", type=int, default=16)
    add("--max-dev-examples", type=int, default=400)
    add("--seeds", type=int, default=3, help="of each row")
    add("--source", help="task whose findings are transferred; default: the first")
    add("--only", choices=["searches", "hand-made"], help="a part, beside another process")
    add("--work", type=Path, default=HERE / "work", help="run folders")
    return parser.parse_args()


class Bench:
    """One task of the table."""

    def __init__(self, task: str, options: argparse.Namespace) -> None:
        self.task, self.options = task, options
        data = load_task(task, data_dir=options.data_dir, max_dev_examples=options.max_dev_examples)
        plan = TrainingPlan(
            max_steps=options.max_steps, num_epochs=1000, batch_size=options.batch_size
        )
        self.training = Training(options.model or default_model(), data, plan)
        self.space = table_space(self.training.model_config)
        self.comparison = Comparison(
            self.training,
            self.trainings_file(),
            seeds=range(1, 1 + options.seeds),
            notify=lambda step: say(task, step.name, step.evaluated.dev, step.evaluated.test),
        )
        self.rows: list[dict[str, object]] = []

    def trainings_file(self) -> Path:
        """Returns the file of the comparison, begun with the trainings that the results hold.

        Where a model lies is another place on each machine and has no part in the results.
        """
        file, kept = self.options.work / f"{self.task}-trainings.json", self.kept_file
        if kept.exists() and not file.exists():
            content = json.loads(kept.read_text())
            if content["plan"] != self.training.plan.about():
                sys.exit(f"{kept} holds trainings of another plan: {content['plan']}")
            about = plain(self.training.about())
            file.parent.mkdir(parents=True, exist_ok=True)
            begun = {"format": COMPARISON_FORMAT, "about": about, "total": None}
            file.write_text(json.dumps(begun | {"evaluations": content["evaluations"]}))
        return file

    @property
    def kept_file(self) -> Path:
        """Where the results keep the trainings."""
        return RESULTS / f"{self.task}-trainings.json"

    def search(self, kind: str) -> Search:
        """Returns a search with all its trials done."""
        folder = self.options.work / f"{self.task}-{SHARDS[kind]}"
        sampler = RandomSampler(self.space, 1) if kind == "random" else None
        about = self.training.about()
        search = Search(self.space, folder, seed=SEARCH_SEED, about=about, sampler=sampler)
        objective = partial(self._evaluate, kind)
        search.run(objective, self.options.trials, callbacks=[tell])
        return search

    def _evaluate(
        self, kind: str, config, learning_rate: float, *, seed: int | None = None
    ) -> Outcome:
        """Trains one trial and makes it a line of the table of trainings, or finds it there."""
        seed = self.training.seed if seed is None else seed
        folder = fidelity_folder(HERE.parent / "table" / "results", self.options.batch_size)
        file = folder / f"{self.task}-{SHARDS[kind]}.jsonl"
        for run in Table.read_file(file, self.space):
            if (run.config, run.learning_rate, run.seed) == (config, learning_rate, seed):
                return outcome_of(run)
        curve = train(self.training, config, learning_rate, seed, evaluations=EVALUATIONS)
        num_params = self.space.num_params(config)
        run = Run(self.task, config, learning_rate, seed, num_params, tuple(curve))
        run.append_to(file, self.training)
        return outcome_of(run)

    def hand_made(self) -> None:
        """Adds a row for each hand-made choice."""
        for baseline in all_baselines(self.training.model_config.hidden_size):
            rates = baseline_rates(baseline.method, HAND_MADE_RATES)
            row = self.comparison.row(baseline.name, baseline.method, rates)
            self.add("hand-made", row, dev=self.best_dev(baseline.method))

    def best_dev(self, method: Method) -> float:
        """Returns the search-dev score by which a method got its rate."""
        evaluations = json.loads(self.comparison.file.read_text())["evaluations"]
        of_method = [e for e in evaluations if e["method"] == method_text(method)]
        return max(e["dev"] for e in of_method if e["test"] is None)

    def found(self, kind: str) -> None:
        """Adds a row for the best configuration within each budget, and within hand-made ones'."""
        budgets = self.budgets()
        if kind == "ours":
            for row in [row for row in self.rows if row["kind"] == "hand-made"]:
                if row["name"] not in WITHOUT_BUDGET:
                    budgets[f"as {row['name']}"] = row["num_params"]
        for name, (member, score) in self.chosen(kind, budgets).items():
            title = f"{kind}, trial {member.number}"
            row = self.comparison.row(title, member.config, [member.learning_rate])
            self.add(kind, row, dev=score, budget=name)

    def transferred(self, source: "Bench") -> None:
        """Adds rows for what a search found on another task, at the rate that it found there."""
        for name, (member, _) in source.chosen("ours", self.budgets()).items():
            title = f"transferred, trial {member.number}"
            row = self.comparison.row(title, member.config, [member.learning_rate])
            self.add("transferred", row, budget=name)

    def chosen(self, kind: str, budgets: dict[str, int]) -> dict[str, tuple[TrialRecord, float]]:
        """Returns what a search has found within each budget, and its mean search-dev score.

        Members of the front are trained with a second seed before one is chosen: of the best of
        many single scores some are luck.
        """
        confirmed = []
        for record in self.search(kind).front()[-MAX_CONFIRMED:]:
            again = self._evaluate(kind, record.config, record.learning_rate, seed=SECOND_SEED)
            say(self.task, kind, record.number, record.num_params, record.score, again.score)
            confirmed.append((record, (record.score + again.score) / 2))
        found = {}
        for name, budget in budgets.items():
            within = [pair for pair in confirmed if pair[0].num_params <= budget]
            if within:  # of equals the smaller one, which comes first
                found[name] = max(within, key=lambda pair: pair[1])
        return found

    def budgets(self) -> dict[str, int]:
        """Returns the budgets of the table in parameters, by their names."""
        total = self.training.about()["num_base_params"]
        return {f"{share:.1%}": int(share * total) for share in SHARES}

    def add(
        self, kind: str, row: Row, *, dev: float | None = None, budget: str | None = None
    ) -> None:
        self.rows.append(
            {
                "kind": kind,
                "name": row.name,
                "budget": budget,
                "num_params": row.num_params,
                "learning_rate": row.learning_rate,
                "dev": dev,
                "scores": row.scores,
            }
        )
        self.write()

    def write(self) -> None:
        plan = {name: getattr(self.options, name) for name in ("trials", "max_steps", "batch_size")}
        constant = constant_predictor(self.training.task, "test")
        content = {
            "task": self.task,
            "plan": plan,
            "num_base_params": self.training.about()["num_base_params"],
            "budgets": self.budgets(),
            "constant": None if constant is None else constant.score,
            "rows": self.rows,
        }
        (RESULTS / f"{self.task}.json").write_text(json.dumps(content, indent=1) + "\n")
        evaluations = json.loads(self.comparison.file.read_text())["evaluations"]
        trainings = {"plan": self.training.plan.about(), "evaluations": evaluations}
        self.kept_file.write_text(json.dumps(trainings, indent=1) + "\n")


def outcome_of(run: Run) -> Outcome:
    _, score, loss, seconds = run.curve[-1]
    return Outcome(score=score, loss=loss, seconds=seconds)


def say(*words: object) -> None:
    print(*words, flush=True)


def tell(search: Search, record: TrialRecord) -> None:
    say(search.folder.path.name, record.number, record.num_params, record.score)


def main() -> None:
    options = read_options()
    # twice as fast as float32 where the processor has it; the same on a GPU
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    RESULTS.mkdir(exist_ok=True)
    source = options.source or options.tasks[0]
    for task in options.tasks:
        bench = Bench(task, options)
        if options.only == "hand-made":
            bench.hand_made()
            continue
        if options.only == "searches":
            for kind in SHARDS:
                bench.chosen(kind, {})
            continue
        bench.hand_made()
        for kind in SHARDS:
            bench.found(kind)
        if task != source:
            bench.transferred(Bench(source, options))


if __name__ == "__main__":
    main()
