"""The interactive figures of scores: the front with its rivals, and the spread over seeds.

What the page's filters need lies in each trace's ``meta``: ``view`` (which split it shows),
``group`` (what a checkbox hides) and ``parts`` (for each point, the parts it uses).

Imports `findings`, `palette`, `repeats` and `words`; imported by `page`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from ..search.trial import TrialRecord
from .findings import Findings, placed_parts
from .palette import BASELINE, DOMINATED, FRONT, INK, PAPER, REPEAT, log_axis, style
from .repeats import Repeat, Scores
from .words import escaped, hover_text, label_sides, repeat_text, score, spread

__all__ = ["HOVER", "front_figure", "noise_figure"]

HOVER = "%{customdata}<extra></extra>"


def front_figure(findings: Findings) -> go.Figure:
    """Returns score over parameters: all trials, the front, repeats over seeds and baselines."""
    figure = go.Figure()
    figure.add_trace(_trials(findings, findings.dominated, "dominated"))
    figure.add_trace(_staircase(findings))
    figure.add_trace(_trials(findings, findings.front, "front"))
    views: dict[str, Callable[[Repeat], Scores]] = {
        "dev": lambda r: r.dev,
        "test": lambda r: r.test,
    }
    for view, scores in views.items():
        members = [repeat for repeat in findings.repeats if repeat.trial is not None]
        baselines = [repeat for repeat in findings.repeats if repeat.trial is None]
        figure.add_trace(_repeats(findings, members, scores, view, "repeats"))
        trained = [repeat for repeat in baselines if repeat.num_params]
        figure.add_trace(_repeats(findings, trained, scores, view, "baselines"))
        for repeat in baselines:
            if not repeat.num_params:  # no place on a logarithmic axis
                figure.add_trace(_level(findings, repeat, scores(repeat), view))
    style(figure, x="trained parameters", y=findings.metric)
    counts = [record.num_params or 1 for record in findings.complete]
    log_axis(
        figure, counts + [repeat.num_params for repeat in findings.repeats if repeat.num_params]
    )
    figure.update_layout(meta={"zoom": _top_range(findings)})
    return figure


def noise_figure(findings: Findings) -> go.Figure:
    """Returns every score of the repeated methods, by method: one search, then new seeds."""
    repeats = findings.repeats
    names = [escaped(repeat.name) for repeat in repeats]
    numbers = {record.number: record for record in findings.complete}
    figure = go.Figure()
    searched = [
        (name, numbers[repeat.trial])
        for name, repeat in zip(names, repeats, strict=True)
        if repeat.trial is not None
    ]
    figure.add_trace(
        go.Scatter(
            name="the search's one score",
            x=[record.score for _, record in searched],
            y=[name for name, _ in searched],
            customdata=[hover_text(findings, record) for _, record in searched],
            marker={"color": PAPER, "size": 12, "line": {"color": INK, "width": 2}},
            mode="markers",
            hovertemplate=HOVER,
        )
    )
    kinds: list[tuple[str, str, str, Callable[[Repeat], Scores]]] = [
        ("search-dev, new seeds", "circle", FRONT, lambda r: r.dev),
        ("report-test, new seeds", "diamond", BASELINE, lambda r: r.test),
    ]
    for title, symbol, color, scores in kinds:
        points = [
            (name, value, scores(repeat))
            for name, repeat in zip(names, repeats, strict=True)
            for value in scores(repeat).values
        ]
        figure.add_trace(
            go.Scatter(
                name=title,
                x=[value for _, value, _ in points],
                y=[name for name, _, _ in points],
                customdata=[
                    f"<b>{name}</b><br>{title}<br>this seed {score(value)}"
                    f"<br>mean {spread(s.mean, s.deviation)}, {len(s.values)} seeds"
                    for name, value, s in points
                ],
                marker={"color": color, "size": 8, "symbol": symbol, "opacity": 0.85},
                mode="markers",
                hovertemplate=HOVER,
            )
        )
    style(figure, x=findings.metric, y="")
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=names[::-1], ticksuffix="  "
    )
    figure.update_layout(
        height=140 + 30 * len(names),
        showlegend=True,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "font": {"color": INK}},
        margin={"t": 60},
    )
    return figure


def _trials(findings: Findings, records: Sequence[TrialRecord], group: str) -> go.Scatter:
    on_front = group == "front"
    return go.Scatter(
        x=[record.num_params for record in records],
        y=[record.score for record in records],
        customdata=[hover_text(findings, record) for record in records],
        ids=[str(record.number) for record in records],
        hovertemplate=HOVER,
        mode="markers",
        marker={
            "color": FRONT if on_front else DOMINATED,
            "size": 13 if on_front else 8,
            "opacity": 1 if on_front else 0.75,
            "line": {"color": PAPER, "width": 1.5 if on_front else 0},
        },
        meta=_meta(findings, "dev", group, records),
    )


def _staircase(findings: Findings) -> go.Scatter:
    return go.Scatter(
        x=[member.num_params for member in findings.front],
        y=[member.mean for member in findings.front],
        hoverinfo="skip",
        mode="lines",
        line={"color": FRONT, "width": 2, "shape": "hv"},
        meta={"view": "dev", "group": "front", "parts": None},
    )


def _repeats(
    findings: Findings,
    repeats: Sequence[Repeat],
    scores: Callable[[Repeat], Scores],
    view: str,
    group: str,
) -> go.Scatter:
    """Returns means over seeds with their standard deviations."""
    numbers = {record.number: record for record in findings.complete}
    records = [numbers[r.trial] if r.trial is not None else None for r in repeats]
    is_baseline = group == "baselines"
    color = BASELINE if is_baseline else REPEAT
    return go.Scatter(
        x=[repeat.num_params for repeat in repeats],
        y=[scores(repeat).mean for repeat in repeats],
        error_y={
            "type": "data",
            "array": [scores(repeat).deviation or 0.0 for repeat in repeats],
            "color": color,
            "thickness": 2,
            "width": 5,
        },
        # no-break spaces keep it off the marker
        text=[f"\u00a0\u00a0{escaped(repeat.name)}\u00a0\u00a0" for repeat in repeats],
        textposition=[
            f"middle {side}" for side in label_sides([repeat.num_params for repeat in repeats])
        ],
        textfont={"color": color, "size": 12, "shadow": "auto"},
        customdata=[
            repeat_text(findings, repeat, scores(repeat), record)
            for repeat, record in zip(repeats, records, strict=True)
        ],
        hovertemplate=HOVER,
        mode="markers+text" if is_baseline else "markers",
        marker={
            "color": color,
            "size": 11,
            "symbol": "diamond" if is_baseline else "square",
            "line": {"color": PAPER, "width": 1},
        },
        meta=_meta(findings, view, group, None if is_baseline else records),
    )


def _level(findings: Findings, repeat: Repeat, scores: Scores, view: str) -> go.Scatter:
    """Returns the line of a method without parameters of its own, across the figure."""
    counts = [r.num_params for r in findings.complete if r.num_params]
    ends = [min(counts, default=1), max(counts, default=1)]
    return go.Scatter(
        x=ends,
        y=[scores.mean] * 2,
        customdata=[repeat_text(findings, repeat, scores, None)] * 2,
        hovertemplate=HOVER,
        text=["", escaped(repeat.name)],
        textposition="top left",
        textfont={"color": BASELINE, "size": 12},
        mode="lines+text",
        line={"color": BASELINE, "width": 1.5, "dash": "dot"},
        meta={"view": view, "group": "baselines", "parts": None},
    )


def _meta(
    findings: Findings, view: str, group: str, records: Sequence[TrialRecord | None] | None
) -> dict[str, Any]:
    parts = None
    if records is not None:
        placed = [placed_parts(r, findings.space.num_layers) if r else {} for r in records]
        parts = [sorted({part for sizes in p.values() for part in sizes}) for p in placed]
    return {"view": view, "group": group, "parts": parts}


def _top_range(findings: Findings) -> dict[str, list[float]]:
    """Returns the scores from the median of the front, or of the members, upwards, by view."""
    seen = [r.score for r in findings.complete if r.score is not None]
    dev = [r.dev.mean for r in findings.repeats]
    test = [r.test.mean for r in findings.repeats]
    ranges = {}
    for view, values in {"dev": seen + dev, "test": test}.items():
        if values:
            values.sort()
            low, high = values[len(values) // 2], values[-1]
            margin = 0.12 * (high - low) or 0.01
            ranges[view] = [low - margin, high + margin]
    return ranges
