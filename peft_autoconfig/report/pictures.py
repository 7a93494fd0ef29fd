"""The still pictures of a report, as PNG files: for slides, papers and READMEs.

They are drawn by Matplotlib without its global state, and without a browser.

Imports `effects`, `findings`, `palette`, `progress`, `repeats` and `words`; imported by `report`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from ..search.trial import TrialRecord
from .effects import Effects
from .findings import Findings, placed_parts
from .palette import BASELINE, DOMINATED, EMPTY, FRONT, GRID, INK, LINE, MUTED, PAPER, REPEAT
from .progress import Step
from .repeats import Repeat
from .words import label, label_sides, part_name

__all__ = ["write_pictures"]

DOTS_PER_INCH = 150
# Names from the run are shown as they are: a dollar sign must not start a formula.
SETTINGS: Any = {
    "text.parse_math": False,
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
}


def write_pictures(
    findings: Findings, effects: Effects | None, steps: Sequence[Step], page: Path
) -> list[Path]:
    """Writes the pictures beside a page and returns them; none of a run without a front.

    Args:
        findings: The run.
        effects: What matters; None leaves that picture out.
        steps: How the search went.
        page: The HTML file, whose name the pictures' names begin with.
    """
    if not findings.front:
        return []
    with matplotlib.rc_context(SETTINGS):
        figures = {
            "front": _front(findings),
            "layers": _layers(findings),
            "progress": _progress(steps),
        }
        if effects is not None:
            figures["effects"] = _effects(effects)
        files = []
        for name, figure in figures.items():
            files.append(page.with_name(f"{page.stem}-{name}.png"))
            figure.savefig(files[-1], dpi=DOTS_PER_INCH, facecolor=PAPER)
    return files


def _front(findings: Findings) -> Figure:
    figure, axes = _empty(7.2, 4.4)
    x, y = _points(findings.dominated)
    axes.scatter(x, y, s=22, color=DOMINATED, label="tried", linewidths=0)
    x, y = _points(findings.front)
    means = [member.mean or 0.0 for member in findings.front]
    axes.step(x, means, where="post", color=FRONT, linewidth=1.8, label="believed of the front")
    axes.scatter(x, y, s=58, color=FRONT, edgecolors=PAPER, zorder=4, label="front, one seed")
    kinds = [(True, REPEAT, "s", "front, new seeds"), (False, BASELINE, "D", "baselines")]
    for is_member, color, marker, name in kinds:
        shown = [r for r in findings.repeats if (r.trial is not None) == is_member and r.num_params]
        if shown:
            axes.errorbar(
                [r.num_params for r in shown],
                [r.dev.mean for r in shown],
                [r.dev.deviation or 0.0 for r in shown],
                fmt=marker,
                color=color,
                markersize=6,
                capsize=3,
                markeredgecolor=PAPER,
                zorder=3,
                label=name,
            )
        if not is_member:
            _name(axes, shown)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_si))
    axes.set_xlabel("trained parameters")
    axes.set_ylabel(f"{findings.metric}, search-dev")
    figure.legend(frameon=False, loc="outside upper left", ncols=4)
    return figure


def _name(axes: Axes, repeats: Sequence[Repeat]) -> None:
    sides = label_sides([repeat.num_params for repeat in repeats])
    for repeat, side in zip(repeats, sides, strict=True):
        axes.annotate(
            repeat.name,
            (repeat.num_params, repeat.dev.mean),
            (-7, 0) if side == "left" else (7, 0),
            textcoords="offset points",
            ha="right" if side == "left" else "left",
            va="center",
            color=BASELINE,
            fontsize=8,
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )


def _layers(findings: Findings) -> Figure:
    num_layers = findings.space.num_layers
    placed = [placed_parts(member, num_layers) for member in findings.front]
    names = findings.parts
    counts = [
        [sum(part in p.get(i, {}) for p in placed) for i in range(num_layers)] for part in names
    ]
    figure, axes = _empty(max(4.0, 1.6 + 0.5 * num_layers), 1.1 + 0.5 * len(names))
    colors = matplotlib.colors.LinearSegmentedColormap.from_list("front", [EMPTY, FRONT])
    axes.pcolormesh(counts, cmap=colors, vmin=0, vmax=len(placed), edgecolors=PAPER, linewidth=3)
    for row, line in enumerate(counts):
        for column, number in enumerate(line):
            if number:
                color = PAPER if number > len(placed) / 2 else INK
                axes.text(
                    column + 0.5, row + 0.5, str(number), ha="center", va="center", color=color
                )
    axes.set_xticks([i + 0.5 for i in range(num_layers)], [str(i) for i in range(num_layers)])
    axes.set_yticks([i + 0.5 for i in range(len(names))], [part_name(name) for name in names])
    axes.set_xlabel(f"layer; how many of the front's {len(placed)} use the part there")
    axes.invert_yaxis()
    _bare(axes)
    return figure


def _progress(steps: Sequence[Step]) -> Figure:
    figure, axes = _empty(7.2, 3.2)
    numbers = list(range(1, len(steps) + 1))
    shares = [100 * step.share for step in steps]
    axes.step(numbers, shares, where="post", color=FRONT, linewidth=1.8)
    axes.scatter(numbers, shares, s=[26.0 if step.gained else 0.0 for step in steps], color=FRONT)
    axes.set_xlabel("finished trials")
    axes.set_ylabel("% of the area under the front now")
    return figure


def _effects(effects: Effects) -> Figure:
    shown = effects.choices[:24][::-1]
    figure, axes = _empty(7.2, 1.2 + 0.28 * len(shown))
    moves = [choice.move for choice in shown]
    axes.barh(
        [label(choice.name) for choice in shown],
        [move.middle for move in moves],
        xerr=[[m.middle - m.low for m in moves], [m.high - m.middle for m in moves]],
        color=[FRONT if m.middle > effects.chance else DOMINATED for m in moves],
        ecolor=INK,
        capsize=2,
        height=0.66,
    )
    axes.axvline(effects.chance, color=BASELINE, linestyle=":", label="a made-up choice")
    axes.set_xlabel("mean change of the score when only this choice changes")
    axes.legend(frameon=False, loc="lower right")
    axes.grid(axis="y", visible=False)
    return figure


def _empty(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _bare(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _points(records: Sequence[TrialRecord]) -> tuple[list[int], list[float]]:
    return (
        [record.num_params or 0 for record in records],
        [record.score or 0.0 for record in records],
    )


def _si(value: float, _: object) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"
