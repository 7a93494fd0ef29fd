"""Does one training, of which every configuration is a slice, rank configurations?

    python benchmarks/fidelity/super_adapter.py --data-dir DATA --tasks trec questions

A super-adapter has the largest size of every part of the table's space in every layer. Each of its
steps trains random configurations: the first rows of the projections, the first prefix positions,
their layers, and the one head. Then the configurations of `../table` are evaluated as slices, with
no training of their own, and compared with what their whole trainings came to. Writes
`results/super_adapter.json`; about five CPU minutes a task.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "table"))
from collect import default_model  # noqa: E402
from table import RATES, Table, table_space  # noqa: E402

from peft_autoconfig.space import SearchSpace  # noqa: E402
from peft_autoconfig.tasks import load_task  # noqa: E402
from peft_autoconfig.training import Training, TrainingPlan  # noqa: E402
from peft_autoconfig.training.batches import batches_of  # noqa: E402
from peft_autoconfig.tuner.config import AutoPEFTConfig  # noqa: E402

SLICES_PER_STEP = 2  # each on its half of the batch
DEV_EXAMPLES = 192  # that a slice is evaluated on
TABLE_STEPS = 96


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", help="folder of parquet files; default: the Hub")
    add("--tasks", nargs="+", default=["trec", "questions"])
    add("--steps", type=int, default=480, help="of the super-adapter")
    add("--rate", type=float, default=2e-3)
    add("--configurations", type=int, help="evaluate so many only; for trying out")
    return parser.parse_args()


class SuperAdapter:
    """The weights of the largest configuration and of the head, lent to slices.

    Args:
        training: Holds model, data and plan.
        space: Whose configurations are slices.
    """

    def __init__(self, training: Training, space: SearchSpace) -> None:
        self.training = training
        largest = AutoPEFTConfig(
            **{name: space.dimensions[name][-1] for name in space.size_names},
            lora_modules=space.lora_modules,
        )
        model = training.pretrained.fresh(largest, seed=0)
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def slice(self, config: AutoPEFTConfig, *, seed: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """Returns a model of a configuration with the shared weights, and its trained ones."""
        model = self.training.pretrained.fresh(config, seed=seed)
        own = {n: p for n, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(_first(self.weights[name], parameter))
        return model, own

    def step(self, config: AutoPEFTConfig, rows: list[int], share: float, *, seed: int) -> None:
        """Adds ``share`` times the gradient of a slice to the shared weights'."""
        training = self.training
        model, own = self.slice(config, seed=seed)
        model.train()
        with training.accelerator.autocast():
            batch = training._batch([training._examples("train")[row] for row in rows])
            loss = training.task.kind.loss(model, batch) * share
        loss.backward()
        for name, parameter in own.items():
            shared = self.weights[name]
            if shared.grad is None:
                shared.grad = torch.zeros_like(shared)
            _first(shared.grad, parameter).add_(parameter.grad)

    def train(self, space: SearchSpace, num_steps: int, rate: float) -> None:
        """Trains random slices; the plan's batches, warm-up and gradient norm."""
        plan, kind = self.training.plan, self.training.task.kind
        weights = list(self.weights.values())
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=plan.weight_decay)
        schedule = get_linear_schedule_with_warmup(
            optimizer, round(plan.warmup_fraction * num_steps), num_steps
        )
        drawn = space.sample_stratified(SLICES_PER_STEP * num_steps, np.random.default_rng(0))
        lengths = [kind.length(example) for example in self.training._examples("train")]
        batches = batches_of(lengths, plan.batch_size, seed=0)
        for step in range(num_steps):
            rows = next(batches)
            for i in range(SLICES_PER_STEP):
                number = SLICES_PER_STEP * step + i
                config, _ = space.decode(drawn[number])
                own_rows = rows[i::SLICES_PER_STEP]
                self.step(config, own_rows, len(own_rows) / len(rows), seed=number)
            nn.utils.clip_grad_norm_(weights, plan.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def _first(weight: Tensor, like: Tensor) -> Tensor:
    """Returns the first entries of a weight along each of its axes, as many as ``like`` has."""
    return weight[tuple(slice(size) for size in like.shape)]


def study(task_name: str, options: argparse.Namespace) -> dict[str, object]:
    """Returns how the slices of one super-adapter rank the trainings of a task's table."""
    task = load_task(task_name, data_dir=options.data_dir, max_dev_examples=400)
    plan = TrainingPlan(max_steps=TABLE_STEPS, num_epochs=1000)
    training = Training(default_model(), task, plan)
    training.load()
    space = table_space(training.model_config)
    table = Table.load(HERE.parent / "table" / "results", task_name, space)
    by_config = {tuple(space.encode(run.config, RATES[0])): run.config for run in table.finished}
    configs = list(by_config.values())[: options.configurations]

    started = time.process_time()
    one = AutoPEFTConfig(serial_bottleneck_size=12, parallel_bottleneck_size=12)
    training.train(one, seed=0)
    one_training = time.process_time() - started

    adapter, started = SuperAdapter(training, space), time.process_time()
    adapter.train(space, options.steps, options.rate)
    trained = time.process_time() - started

    rows = np.random.default_rng(0).permutation(len(task.dev.labels))[:DEV_EXAMPLES].tolist()
    started, found = time.process_time(), []
    for config in configs:
        evaluation = training.evaluate(adapter.slice(config, seed=0)[0], "dev", rows=rows)
        found.append((evaluation.score, -evaluation.loss))
    evaluated = time.process_time() - started
    return {
        "configurations": len(configs),
        "cost_of_training": round(trained / one_training, 2),
        "cost_of_an_evaluation": round(evaluated / len(configs) / one_training, 3),
        **compare(table, configs, np.array(found)),
        "slices": [
            [space.num_params(c), *map(float, f)] for c, f in zip(configs, found, strict=True)
        ],
    }


def compare(table: Table, configs: list[AutoPEFTConfig], found: np.ndarray) -> dict[str, object]:
    """Returns Kendall's tau of slices with whole trainings, and of what costs nothing.

    Args:
        table: The trainings.
        configs: Configurations of the table.
        found: Score and negative loss of each as a slice, ``n x 2``.
    """
    # each was trained at one rate, so a model of all trainings says what its best rate would give
    believed = [max(table.predict(c, rate)[0] for rate in RATES) for c in configs]
    raw = [np.mean([s for rate in RATES for s in table.exact(config, rate)]) for config in configs]
    cost = -np.array([table.space.num_params(config) for config in configs])
    signals = {"score": found[:, 0], "loss": found[:, 1], "fewer parameters": cost}
    targets = {"best rate, by a model": np.array(believed), "as trained": np.array(raw)}
    result: dict[str, object] = {}
    for target, values in targets.items():
        better = values >= np.quantile(values, 0.7)
        result[target] = {
            name: {
                "tau": round(float(kendalltau(signal, values)[0]), 3),
                "tau_of_best_30_percent": round(
                    float(kendalltau(signal[better], values[better])[0]), 3
                ),
            }
            for name, signal in signals.items()
        }
    return result


def main() -> None:
    options = read_options()
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    file = HERE / "results" / "super_adapter.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for task_name in options.tasks:
        results[task_name] = {"steps": options.steps, "rate": options.rate} | study(
            task_name, options
        )
        if options.configurations is None:
            file.write_text(json.dumps(results, indent=1) + "\n")
        print(task_name, {k: v for k, v in results[task_name].items() if k != "slices"}, flush=True)


if __name__ == "__main__":
    main()
