"""The interactive figures beside the scores: where parts go, what matters, how the search went.

Imports `effects`, `findings`, `palette`, `progress`, `score_figures` and `words`; imported by
`page`.
"""

from collections.abc import Sequence

import plotly.graph_objects as go

from ..search.trial import TrialRecord
from .effects import Choice, Effects
from .findings import Findings, placed_parts
from .palette import BASELINE, DOMINATED, EMPTY, FRONT, INK, log_axis, style
from .progress import Step
from .score_figures import HOVER
from .words import escaped, hover_text, label, part_name, score

__all__ = [
    "curve_figure",
    "effects_figure",
    "layers_figure",
    "seconds_figure",
    "volume_figure",
]

MAX_BARS = 24


def layers_figure(findings: Findings, records: Sequence[TrialRecord]) -> go.Figure:
    """Returns how many of some configurations use each part in each layer."""
    num_layers = findings.space.num_layers
    placed = [placed_parts(record, num_layers) for record in records]
    names = findings.parts
    cells: list[list[list[str]]] = [
        [
            [
                f"trial {record.number}: {p[layer][part]}"
                for record, p in zip(records, placed, strict=True)
                if part in p.get(layer, {})
            ]
            for layer in range(num_layers)
        ]
        for part in names
    ]
    figure = go.Figure(
        go.Heatmap(
            x=[str(layer) for layer in range(num_layers)],
            y=[part_name(name) for name in names],
            z=[[len(cell) for cell in row] for row in cells],
            text=[[str(len(cell) or "") for cell in row] for row in cells],
            customdata=[
                [_cell_text(name, layer, cell, len(records)) for layer, cell in enumerate(row)]
                for name, row in zip(names, cells, strict=True)
            ],
            texttemplate="%{text}",
            hovertemplate=HOVER,
            colorscale=[[0, EMPTY], [1, FRONT]],
            zmin=0,
            zmax=max(1, len(records)),
            xgap=3,
            ygap=3,
            showscale=False,
        )
    )
    style(figure, x="layer, from the input", y="")
    figure.update_xaxes(type="category", showgrid=False, ticks="")
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed", ticksuffix="  ")
    figure.update_layout(height=90 + 46 * max(1, len(names)))
    return figure


def effects_figure(effects: Effects) -> go.Figure:
    """Returns how far each choice moves the score, against what a made-up choice does."""
    shown = effects.choices[:MAX_BARS]
    moves = [choice.move for choice in shown]
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=[escaped(label(choice.name)) for choice in shown],
            x=[move.middle for move in moves],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [move.high - move.middle for move in moves],
                "arrayminus": [move.middle - move.low for move in moves],
                "color": INK,
                "thickness": 1.5,
                "width": 3,
            },
            marker_color=[FRONT if m.middle > effects.chance else DOMINATED for m in moves],
            customdata=[_effect_text(choice, effects) for choice in shown],
            hovertemplate=HOVER,
        )
    )
    figure.add_vline(x=effects.chance, line={"color": BASELINE, "width": 2, "dash": "dot"})
    figure.add_annotation(
        x=effects.chance,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="left",
        text="a made-up choice",
        showarrow=False,
        font={"color": BASELINE},
    )
    style(figure, x="mean change of the score", y="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix="  ")
    figure.update_layout(height=110 + 30 * len(shown), bargap=0.35)
    return figure


def curve_figure(findings: Findings, choice: Choice) -> go.Figure:
    """Returns the mean score with a choice at each of its levels, over what trials scored."""
    names = [f"{level:g}" for level in choice.levels]
    middle = [interval.middle for interval in choice.curve]
    figure = go.Figure()
    points = [(_level_of(findings, r, choice.name), r) for r in findings.complete]
    points = [(level, r) for level, r in points if level in choice.levels]
    figure.add_trace(
        go.Scatter(
            x=[f"{level:g}" for level, _ in points],
            y=[record.score for _, record in points],
            customdata=[hover_text(findings, record) for _, record in points],
            hovertemplate=HOVER,
            mode="markers",
            marker={"color": DOMINATED, "size": 5, "opacity": 0.7},
        )
    )
    figure.add_trace(
        go.Scatter(
            x=names,
            y=middle,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [i.high - i.middle for i in choice.curve],
                "arrayminus": [i.middle - i.low for i in choice.curve],
                "color": FRONT,
                "thickness": 1.5,
                "width": 0,
            },
            customdata=[
                f"{escaped(label(choice.name))} {name}<br>mean {score(i.middle)}"
                f"<br>80 % interval {score(i.low)} to {score(i.high)}"
                for name, i in zip(names, choice.curve, strict=True)
            ],
            hovertemplate=HOVER,
            mode="lines+markers",
            line={"color": FRONT, "width": 2},
            marker={"color": FRONT, "size": 7},
        )
    )
    style(figure, x="", y="")
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=names, showgrid=False, tickangle=0
    )
    figure.update_layout(
        height=230, margin={"l": 46, "r": 8, "t": 8, "b": 34}, font={"size": 12, "color": INK}
    )
    return figure


def volume_figure(findings: Findings, steps: Sequence[Step]) -> go.Figure:
    """Returns the area under the front after each finished trial."""
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(steps) + 1)),
            y=[100 * step.share for step in steps],
            customdata=[
                f"after {n} trials: {100 * step.share:.1f} %<br>"
                + hover_text(findings, step.trial.record)
                for n, step in enumerate(steps, start=1)
            ],
            hovertemplate=HOVER,
            mode="lines+markers",
            line={"color": FRONT, "width": 2, "shape": "hv"},
            marker={"color": FRONT, "size": [8 if step.gained else 0 for step in steps]},
        )
    )
    style(figure, x="finished trials", y="% of the area now")
    figure.update_yaxes(range=[-3, 106])
    figure.update_layout(height=280)
    return figure


def seconds_figure(findings: Findings) -> go.Figure:
    """Returns the seconds that each complete trial took, over its parameters."""
    records = findings.complete
    members = {member.number for member in findings.front}
    figure = go.Figure(
        go.Scatter(
            x=[record.num_params for record in records],
            y=[record.seconds for record in records],
            customdata=[hover_text(findings, record) for record in records],
            hovertemplate=HOVER,
            mode="markers",
            marker={
                "color": [FRONT if r.number in members else DOMINATED for r in records],
                "size": [9 if r.number in members else 7 for r in records],
            },
        )
    )
    style(figure, x="trained parameters", y="seconds")
    log_axis(figure, [record.num_params or 1 for record in records])
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=280)
    return figure


def _cell_text(name: str, layer: int, cell: Sequence[str], total: int) -> str:
    shown = [*cell[:8], f"and {len(cell) - 8} more"] if len(cell) > 9 else cell
    head = f"<b>{part_name(name)}, layer {layer}</b><br>{len(cell)} of {total}"
    return "<br>".join([head, *shown])


def _effect_text(choice: Choice, effects: Effects) -> str:
    move = choice.move
    lines = [
        f"<b>{escaped(label(choice.name))}</b>",
        f"moves the score by {score(move.middle)}",
        f"80 % interval {score(move.low)} to {score(move.high)}",
        f"a made-up choice: {score(effects.chance)}",
    ]
    return "<br>".join(lines)


def _level_of(findings: Findings, record: TrialRecord, name: str) -> float | None:
    assert record.config is not None
    value = findings.space.params(record.config, record.learning_rate).get(name)
    return None if value is None else float(value)
