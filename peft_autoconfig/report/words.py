"""How a report puts numbers, configurations and trials into words.

Text that is shown by Plotly, which reads some HTML, is escaped here; other text is plain.

Imports `findings`, `repeats` and `search`; imported by the figures, `pictures` and `page`.
"""

import html
import math
from collections.abc import Sequence

from ..search.trial import TrialRecord
from .findings import Findings, placed_parts
from .repeats import Repeat, Scores

__all__ = [
    "count",
    "described",
    "duration",
    "escaped",
    "hover_text",
    "label",
    "label_sides",
    "part_name",
    "repeat_text",
    "score",
    "spread",
]

LABELS = {
    "serial_bottleneck_size": "serial size",
    "parallel_bottleneck_size": "parallel size",
    "prefix_length": "prefix length",
    "lora_rank": "LoRA rank",
    "learning_rate": "learning rate",
}


def part_name(part: str) -> str:
    """Returns how a part is called in print."""
    return "LoRA" if part == "lora" else part


def label(name: str) -> str:
    """Returns how a choice of the space is called in print."""
    return LABELS.get(name, name.replace("_", " "))


def score(value: float) -> str:
    """Returns a score with as many digits as tell something."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def spread(mean: float, deviation: float | None) -> str:
    """Returns a mean with its standard deviation, if there is one."""
    return score(mean) if deviation is None else f"{score(mean)}\u00a0±\u00a0{score(deviation)}"


def count(number: float) -> str:
    """Returns a count with thousands set apart."""
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Returns a time in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def described(record: TrialRecord, num_layers: int) -> str:
    """Returns a configuration in words, such as "serial 1 in layers 2-5"."""
    groups: dict[str, list[int]] = {}
    for layer, parts in placed_parts(record, num_layers).items():
        sizes = " + ".join(f"{part_name(part)} {size}" for part, size in parts.items())
        groups.setdefault(sizes, []).append(layer)
    return "; ".join(f"{sizes} in {_layers(found, num_layers)}" for sizes, found in groups.items())


def escaped(text: str) -> str:
    """Returns text that Plotly shows as it is: it would read tags, and formulas between dollars."""
    return html.escape(text).replace("$", "&#36;")


def hover_text(findings: Findings, record: TrialRecord) -> str:
    """Returns the lines on one trial that a figure shows at its point."""
    lines = [
        f"<b>trial {record.number}</b>",
        f"{escaped(findings.metric)} {score(record.score or 0.0)}",
        *([] if record.mean is None else [f"believed {spread(record.mean, record.deviation)}"]),
        f"{count(record.num_params or 0)} parameters",
        *described(record, findings.space.num_layers).split("; "),
    ]
    if record.learning_rate is not None:
        lines.append(f"learning rate {record.learning_rate:g}")
    if record.seconds:
        lines.append(duration(record.seconds))
    return "<br>".join(lines)


def label_sides(counts: Sequence[int]) -> list[str]:
    """Returns "left" or "right", where each of ascending counts has more room for its label."""
    sides = []
    for i, middle in enumerate(counts):
        before = middle / counts[i - 1] if i else math.inf
        after = counts[i + 1] / middle if i + 1 < len(counts) else 1.0  # the figure's edge
        sides.append("left" if before >= after else "right")
    return sides


def repeat_text(
    findings: Findings, repeat: Repeat, scores: Scores, record: TrialRecord | None
) -> str:
    """Returns the lines on one repeated method that a figure shows at its point."""
    seeds = len(scores.values)
    lines = [
        f"<b>{escaped(repeat.name)}</b>",
        f"{spread(scores.mean, scores.deviation)} over {seeds} seed{'s' if seeds > 1 else ''}",
        f"{count(repeat.num_params)} parameters",
    ]
    if record is not None:
        lines += described(record, findings.space.num_layers).split("; ")
    return "<br>".join([*lines, f"learning rate {repeat.learning_rate:g}"])


def _layers(layers: list[int], num_layers: int) -> str:
    if len(layers) == num_layers:
        return "all layers"
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    # two neighbours read better apart
    words = [
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(str(layer) for layer in run)
        for run in runs
    ]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"
