"""Writes `results/summary.json` and the tables of README.md from the collected trainings."""

import json
from pathlib import Path

import numpy as np
from optimisers import lines as samplers_on_tables
from table import DEFAULT_BATCH_SIZE, Table, fidelity_folder

FOLDER = Path(__file__).parent
BATCH_SIZES = (DEFAULT_BATCH_SIZE, 16)
MARK = "<!-- tables, written by summarise.py -->"


def main() -> None:
    results = FOLDER / "results"
    tables = {}
    for batch_size in BATCH_SIZES:
        files = fidelity_folder(results, batch_size).glob("*.jsonl")
        for task in sorted({file.name.rpartition("-")[0] for file in files}):
            table = Table.load(results, task, batch_size=batch_size)
            tables[f"{task}, steps of {batch_size}"] = table
    tasks = {name.partition(",")[0] for name in tables}
    trainings = sum(len(table.runs) for table in tables.values())
    seconds = sum(run.curve[-1][3] for table in tables.values() for run in table.finished)
    summary = {
        "trainings": trainings,
        "tasks": len(tasks),
        "failed": trainings - sum(len(table.finished) for table in tables.values()),
        "training_hours": round(seconds / 3600, 2),
    }
    (FOLDER / "results" / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    lines = [
        MARK,
        "",
        "| task | trainings | best score | noise (sd over seeds) |",
        "|---|--:|--:|--:|",
    ]
    for task, table in tables.items():
        best = max(run.score for run in table.finished)
        noise = f"{table.noise:.4f}" if table.repeated else ""
        lines.append(f"| {task} | {len(table.runs)} | {best:.3f} | {noise} |")
    for task, table in tables.items():
        lines += ["", f"**{task}**, the front of single trainings:", ""]
        lines += ["| parameters | score | serial | parallel | prefix | LoRA | layers | rate |"]
        lines += ["|--:|--:|--:|--:|--:|--:|---|--:|"]
        for run in table.front():
            config = run.config
            layers = config.layers_to_transform
            where = "all" if layers is None else ", ".join(map(str, layers))
            lines.append(
                f"| {run.num_params:,} | {run.score:.3f} | {config.serial_bottleneck_size} "
                f"| {config.parallel_bottleneck_size} | {config.prefix_length} "
                f"| {config.lora_rank} | {where} | {run.learning_rate:g} |"
            )
        lines += ["", rates(table)]
    found = results / "optimisers.json"
    if found.exists():
        lines += ["", "**Samplers on the tables**, written by `optimisers.py`:", ""]
        lines += samplers_on_tables(json.loads(found.read_text()))
    readme = FOLDER / "README.md"
    text = readme.read_text(encoding="utf-8").split(MARK)[0]
    readme.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def rates(table: Table) -> str:
    """Returns how the median score depends on the rate."""
    by_rate: dict[float, list[float]] = {}
    for run in table.finished:
        by_rate.setdefault(run.learning_rate, []).append(run.score)
    medians = ", ".join(
        f"{rate:g}: {np.median(scores):.3f} ({len(scores)})"
        for rate, scores in sorted(by_rate.items())
    )
    return f"Median score by learning rate (trainings): {medians}."


if __name__ == "__main__":
    main()
