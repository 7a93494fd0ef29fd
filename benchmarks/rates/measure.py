"""Trains eight configurations at four rates each on some tasks: what `rates.py` judges ways by.

    python benchmarks/rates/measure.py --data-dir DATA --tasks trec questions

One line of JSON a training, in the format of `../table`, appended when it is done: stopped at any
moment, the same command goes on.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "table"))
from collect import add_source, train, training_of  # noqa: E402
from table import Run, Table, table_space  # noqa: E402

from peft_autoconfig.errors import TrainingError  # noqa: E402
from peft_autoconfig.space import SearchSpace  # noqa: E402
from peft_autoconfig.tuner.config import AutoPEFTConfig  # noqa: E402

RATES = (1e-3, 2e-3, 5e-3, 1e-2)
# Each part alone and two mixtures, in all layers or in those named; cheap and dear by turns, so
# that what is there at any moment covers the sizes.
CONFIGS = (
    {"parallel_bottleneck_size": 1, "layers_to_transform": [0, 2, 3, 4]},
    {"parallel_bottleneck_size": 48},
    {"lora_rank": 1},
    {"serial_bottleneck_size": 192, "parallel_bottleneck_size": 48},
    {"serial_bottleneck_size": 12, "prefix_length": 1, "layers_to_transform": [1, 2, 4]},
    {"lora_rank": 8, "layers_to_transform": [3, 4, 5]},
    {"serial_bottleneck_size": 1},
    {"prefix_length": 12},
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser, ["trec", "questions", "cr"])
    add = parser.add_argument
    add("--max-steps", type=int, default=96, help="optimiser steps of each")
    add("--batch-size", type=int, default=16)
    add("--max-dev-examples", type=int, default=400)
    add("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


def configurations(space: SearchSpace) -> list[AutoPEFTConfig]:
    """Returns the configurations of this study."""
    return [AutoPEFTConfig(**sizes, lora_modules=space.lora_modules) for sizes in CONFIGS]


def missing(
    runs: list[Run], space: SearchSpace, seeds: list[int]
) -> Iterator[tuple[AutoPEFTConfig, float, int]]:
    """Yields configuration, rate and seed of each training that is not among ``runs``."""
    done = {(*space.encode(run.config, run.learning_rate), run.seed) for run in runs}
    for seed in seeds:
        for config in configurations(space):
            for rate in RATES:
                if (*space.encode(config, rate), seed) not in done:
                    yield config, rate, seed


def collect(task_name: str, arguments: argparse.Namespace) -> Iterator[None]:
    """Trains what the task's file lacks, with a pause after each configuration's last rate."""
    file = HERE / "results" / f"{task_name}-0.jsonl"
    training = training_of(
        task_name,
        arguments,
        steps=arguments.max_steps,
        batch_size=arguments.batch_size,
        max_dev_examples=arguments.max_dev_examples,
    )
    space = table_space(training.model_config)
    runs = Table.read_file(file, space)
    for config, rate, seed in missing(runs, space, arguments.seeds):
        try:
            curve, failure = train(training, config, rate, seed), None
        except TrainingError as error:
            curve, failure = [], str(error)
        run = Run(task_name, config, rate, seed, space.num_params(config), tuple(curve), failure)
        run.append_to(file, training)
        print(f"{task_name}: {run.num_params} parameters, rate {rate:g}, {failure or curve[-1]}")
        if rate == RATES[-1]:
            yield


def main() -> None:
    arguments = parse_arguments()
    (HERE / "results").mkdir(exist_ok=True)
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    # the tasks in turn, a configuration of each
    for _ in itertools.zip_longest(*(collect(name, arguments) for name in arguments.tasks)):
        pass


if __name__ == "__main__":
    main()
