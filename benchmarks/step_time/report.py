"""The results on disk, their summary and their tables.

`results/step_time.json` holds every round: condition ("cpu_fp32") -> cell ("minilm/64") -> facts,
and mode -> trainable parameters, seconds at the three marks for both clocks, memory in MB.
`summary.json` is flat: ratios of the median step at MiniLM size, sequence 64; a name without a
condition is of fp32 on a CPU. On a CPU the clock is CPU time, which other people's processes
disturb less; on a GPU wall time.
"""

import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from modes import MODES, comparisons

PLAIN, SUMMARY_CELL = "cpu_fp32", "minilm/64"
START, END = "<!-- tables, written by run.py -->", "<!-- end of tables -->"
TITLES = {"minilm": "MiniLM size (6 x 384)", "base": "BERT-base size (12 x 768)"}
FORWARD, BACKWARD, STEP = range(3)


class Results:
    """The folder of results; reads what earlier runs left there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "step_time.json"
        self.conditions: dict[str, Any] = {}
        if self.file.exists():
            self.conditions = json.loads(self.file.read_text())

    def put(self, condition: str, cell: str, content: dict[str, Any]) -> None:
        """Replaces one cell and rewrites both files."""
        self.conditions.setdefault(condition, {})[cell] = content
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.file, _dump(self.conditions))
        _write(self.folder / "summary.json", json.dumps(self.summary(), indent=2) + "\n")

    def cell(self, condition: str, cell: str) -> dict[str, Any]:
        """Returns a cell that an earlier run measured."""
        content = self.conditions.get(condition, {}).get(cell)
        if content is None:
            raise SystemExit(
                f"{self.file} has no times of {cell} on {condition}; measure them first."
            )
        return dict(content)

    def summary(self) -> dict[str, float]:
        """Returns name -> ratio, of medians of whole steps."""
        found = {}
        for condition, cells in self.conditions.items():
            modes = cells.get(SUMMARY_CELL, {}).get("modes", {})
            end = "" if condition == PLAIN else f"_{condition}"
            for name, (ours, theirs) in comparisons().items():
                pair = [_seconds(modes.get(key, {}), condition) for key in (ours, theirs)]
                if all(pair):
                    found[name + end] = round(median(pair[0]) / median(pair[1]), 4)
        return found

    def tables(self) -> str:
        """Returns the Markdown of all that was measured."""
        parts = []
        for condition, cells in self.conditions.items():
            for cell, content in cells.items():
                parts += _cell_tables(condition, cell, content)
        return "\n".join(parts)


def write_readme(readme: Path, tables: str) -> None:
    """Puts the tables between their two marks."""
    before, rest = readme.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    _write(readme, f"{before}{START}\n{tables}\n{END}{after}")


def _cell_tables(condition: str, cell: str, content: dict[str, Any]) -> list[str]:
    size, sequence = cell.split("/")
    modes = content["modes"]
    lines = [f"\n### {TITLES[size]}, sequence {sequence}, {condition.replace('_', ' ')}\n"]
    lines += [_facts(content["facts"], modes, condition), ""]
    lines += [
        "| mode | trainable | forward ms | + backward | + optimizer step | / frozen "
        "| kept for backward MB | peak growth MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_mode_line(key, modes, condition) for key in MODES if key in modes]
    lines += [
        "",
        "| ratio of whole steps, paired by round | median | quartiles |",
        "|---|---:|---:|",
    ]
    for name, (ours, theirs) in comparisons().items():
        ratios = _paired(modes, ours, theirs, condition)
        if ratios and name != "top_half_vs_floor":
            low, high = _quartiles(ratios)
            lines.append(f"| {name} | {median(ratios):.3f} | {low:.3f} to {high:.3f} |")
    return lines


def _facts(facts: dict[str, Any], modes: dict[str, Any], condition: str) -> str:
    rounds = max((len(_seconds(m, condition)) for m in modes.values()), default=0)
    versions = "; ".join(
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in facts[name].items())
        for name in facts
        if name.endswith("environment")
    )
    return (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores (load {facts['load']} when "
        f"it began), threads: {facts['threads']}, rounds: {rounds}, batch {facts['batch']}, tuner "
        f"at {facts['commit']}. {versions}."
    )


def _mode_line(key: str, modes: dict[str, Any], condition: str) -> str:
    mode = modes[key]
    if "error" in mode:
        return f"| {key} | not measured: {mode['error'].splitlines()[0]} | | | | | | |"
    marks = [_seconds(mode, condition, mark) for mark in (FORWARD, BACKWARD, STEP)]
    times = [f"{1000 * median(seconds):.0f}" if seconds else "" for seconds in marks]
    ratios = _paired(modes, key, "frozen/main", condition)
    ratio = f"{median(ratios):.2f}" if ratios else ""
    memory = [
        f"{mode[name]:.0f}" if mode.get(name) is not None else "" for name in ("saved", "peak")
    ]
    return f"| {' | '.join([key, format(mode['trainable'], ','), *times, ratio, *memory])} |"


def _seconds(mode: dict[str, Any], condition: str, mark: int = STEP) -> list[float]:
    clock = "cpu" if condition.startswith("cpu") else "wall"
    return [marks[mark] for marks in mode.get(clock, [])]


def _paired(modes: dict[str, Any], ours: str, theirs: str, condition: str) -> list[float]:
    pair = [_seconds(modes.get(key, {}), condition) for key in (ours, theirs)]
    # a run that was cut off may have the last round of one only
    return [a / b for a, b in zip(*pair, strict=False)]


def _quartiles(ratios: list[float]) -> tuple[float, float]:
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return low, high


def _dump(conditions: dict[str, Any]) -> str:
    """JSON with one line per mode."""
    blocks = []
    for condition, cells in conditions.items():
        inner = []
        for cell, content in cells.items():
            lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content["modes"].items()]
            facts = f'"facts": {json.dumps(content["facts"])}'
            joined = ",\n".join(lines)
            inner.append(f'{json.dumps(cell)}: {{{facts}, "modes": {{\n{joined}\n}}}}')
        cells_text = ",\n".join(inner)
        blocks.append(f"{json.dumps(condition)}: {{\n{cells_text}\n}}")
    blocks_text = ",\n".join(blocks)
    return f"{{\n{blocks_text}\n}}\n"


def _write(file: Path, text: str) -> None:
    # in one move: a run may end at any moment
    draft = file.with_suffix(file.suffix + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
