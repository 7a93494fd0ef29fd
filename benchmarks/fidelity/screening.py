"""A real search by short trainings, whose front alone is trained in full, beside one of whole ones.

    python benchmarks/fidelity/screening.py --data-dir DATA --tasks trec questions --steps 12

Our sampler tries 40 configurations for a few steps each, by a schedule of that length; at most 8
members of its front are then trained as long as those of `../headline` were (96 steps of 16), whose
search of 40 whole trainings (`../table`) has the same space, seed of the design and seed of the
trainings. `results/screening.jsonl` has a line for each search: CPU seconds as a share of what 40
whole trainings take here, and the best score of whole trainings, averaged over the logarithm of the
parameters that may be spent, of both.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

from fidelity import TABLE, area

from peft_autoconfig import Search
from peft_autoconfig.front.front import choose_members
from peft_autoconfig.search.trial import TrialRecord
from peft_autoconfig.training import Training

sys.path.append(str(TABLE))
from collect import add_source, training_of
from table import Run, Table, fidelity_folder, table_space

FILE = Path(__file__).resolve().parent / "results" / "screening.jsonl"
BATCH_SIZE, WHOLE, NUM_TRIALS = 16, 96, 40
SEED = 2  # of the search of `../headline` that is stored as "ours2"


class Timed:
    """A training as objective, whose CPU seconds are kept."""

    def __init__(self, training: Training) -> None:
        self.training, self.spent = training, []

    def __call__(self, config, *, learning_rate):
        began = time.process_time()
        outcome = self.training(config, learning_rate=learning_rate)
        self.spent.append(time.process_time() - began)
        return outcome


def timed(task: str, steps: int, arguments: argparse.Namespace) -> Timed:
    training = training_of(task, arguments, steps=steps, batch_size=BATCH_SIZE)
    training.load()
    return Timed(training)


def screen(task: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Returns what one search by short trainings cost and found."""
    short = timed(task, arguments.steps, arguments)
    whole = timed(task, WHOLE, arguments)
    space = table_space(short.training.model_config)
    with tempfile.TemporaryDirectory() as folder:
        search = Search(space, Path(folder) / "run", seed=seed)
        search.run(short, NUM_TRIALS)
        members = choose_members(search.front(), arguments.full)
    runs = [trained(task, whole, member) for member in members]
    file = fidelity_folder(TABLE / "results", BATCH_SIZE) / f"{task}-ours2.jsonl"
    others = [run for run in Table.read_file(file, space) if run.curve and run.seed == 0]
    table = Table(others, space)
    return {
        "task": task,
        "steps": arguments.steps,
        "seed": seed,
        "full": len(runs),
        "cost": round((sum(short.spent) + sum(whole.spent)) / (NUM_TRIALS * mean(whole.spent)), 3),
        "area": round(area(table, runs), 4),
        "area_of_whole_trainings": round(area(table, others[:NUM_TRIALS]), 4),
        "front": [
            [member.num_params, member.learning_rate, member.score, run.score]
            for member, run in zip(members, runs, strict=True)
        ],
    }


def trained(task: str, whole: Timed, member: TrialRecord) -> Run:
    """Returns the whole training of a member of the front."""
    outcome = whole(member.config, learning_rate=member.learning_rate)
    curve = ([WHOLE, outcome.score, outcome.loss, whole.spent[-1]],)
    return Run(task, member.config, member.learning_rate, 0, member.num_params, curve)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser, ["trec", "questions", "cr"])
    add = parser.add_argument
    add("--steps", type=int, default=12, help="of the short trainings")
    add("--full", type=int, default=8, help="members of the front trained in full, at most")
    add("--seeds", type=int, nargs="+", default=[SEED])
    arguments = parser.parse_args()
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    for seed in arguments.seeds:
        for task in arguments.tasks:
            found = screen(task, seed, arguments)
            with FILE.open("a") as lines:
                lines.write(json.dumps(found) + "\n")
            print(found, flush=True)


if __name__ == "__main__":
    main()
