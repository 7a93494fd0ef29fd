"""Finds small, good PEFT configurations for a task: a front of score against parameters.

    python examples/search.py                                  # embedded task and model, on a CPU
    accelerate launch examples/search.py --model bert-base-uncased --task rte --trials 60
    accelerate launch examples/search.py --task trec --data-dir data      # parquet files, offline
    accelerate launch examples/search.py --train-file reviews.csv --text-columns text \
        --label-column stars
    accelerate launch examples/search.py --parallel data --model roberta-base --task rte

Interrupt it as you like: the same command goes on where it was.
"""

import argparse
import sys

from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.front import markdown_table
from peft_autoconfig.front.view import TableView
from peft_autoconfig.recipe import Recipe
from peft_autoconfig.search.live import LiveView, describe, quieten
from peft_autoconfig.tasks import task_names
from peft_autoconfig.training import Training
from peft_autoconfig_cli.interruption import heed_interruptions


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    data = parser.add_argument_group("what to learn")
    data.add_argument("--model", help="Hub id or folder; default: all-MiniLM-L6-v2 from PyPI")
    data.add_argument("--task", help=f"one of {', '.join(task_names())}")
    data.add_argument("--data-dir", help="folder of parquet files, to work without the Hub")
    data.add_argument("--train-file", help="CSV, JSON or parquet file of your own")
    data.add_argument("--validation-file", help="examples to report on; default: held out")
    data.add_argument("--text-columns", nargs="+", help="one or two columns of --train-file")
    data.add_argument("--label-column", default="label", help="label column of --train-file")
    data.add_argument("--max-train-examples", type=int, help="train on so many only")
    train = parser.add_argument_group("how each configuration is trained")
    train.add_argument("--epochs", type=float, default=3.0)
    train.add_argument("--max-steps", type=int, help="optimiser steps at most")
    train.add_argument("--batch-size", type=int, default=32)
    train.add_argument("--max-length", type=int, default=128, help="tokens kept of an example")
    train.add_argument(
        "--learning-rates", type=float, nargs="+", default=[1e-3, 5e-3, 1e-2],
        help="rates that the search, and each baseline, may choose from",
    )  # fmt: skip
    search = parser.add_argument_group("the search")
    search.add_argument("--trials", type=int, help="configurations to train")
    search.add_argument("--max-params", type=int, help="parameters at most")
    search.add_argument("--max-hours", type=float, help="begin no trial after so many hours")
    search.add_argument("--max-training-hours", type=float, help="sum over all processes")
    search.add_argument(
        "--parallel", choices=["trials", "data"],
        help="processes of a launch train trials of their own (default), or each one together",
    )  # fmt: skip
    search.add_argument("--storage", help="postgresql+psycopg2://user@host/database, to share")
    search.add_argument("--output", default="runs/search", help="run folder")
    add("--seed", type=int, default=0)
    report = parser.add_argument_group("the report")
    report.add_argument("--report-seeds", type=int, default=2, help="0 leaves the report out")
    report.add_argument("--front-members", type=int, help="members to train and save; default: all")
    return parser.parse_args()


def main() -> None:
    given = {name: value for name, value in vars(parse_arguments()).items() if value is not None}
    output = given.pop("output")
    quieten()
    recipe = Recipe.of(given)
    training = recipe.training()
    with training.together() as leads:
        if leads:
            run(recipe, training, output)


def run(recipe: Recipe, training: Training, output: str) -> None:
    search = recipe.search(training, output)
    is_first = training.accelerator.is_local_main_process
    with LiveView(search, recipe.num_trials, enabled=is_first) as live:
        recipe.run(search, training, callbacks=[live])
    # the processes of one launch may each search, but what follows is one process's work
    if not training.accelerator.is_main_process:
        return
    task = training.task
    trials = recipe.num_trials
    print(f"\nFront of {trials} trials on {task.name}, by {task.metric.name} on search-dev:")
    for member in search.front():
        print(
            f"  {member.score:.4f}  {member.num_params:>9,} parameters  trial {member.number}: "
            f"{describe(member.config)}, learning rate {member.learning_rate:g}"
        )
    if recipe.report_seeds:
        print("\nOn the report-test split, which the search has not seen:\n")
        with TableView() as view:
            rows = recipe.compare(search, training, notify=view)
        print(markdown_table(rows, task.metric.name, search.about["num_base_params"]))
    print(f'\nUse the best: AutoPEFTConfig.from_search("{output}")')


if __name__ == "__main__":
    # also of machines that may be taken away, which say so first
    heed_interruptions()
    try:
        main()
    except AutoConfigError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Everything finished is kept; the same command goes on from here.")
