"""The colours of a report and the look of its interactive figures.

Hues are Okabe and Ito's, which colour-blind readers tell apart; each is paired with the one that
stands for it on a dark page. Nothing is said by colour alone: shapes and words say it too.

Imports `words`; imported by the figures, `pictures` and `page`.
"""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from .words import escaped

__all__ = [
    "BASELINE",
    "DARK",
    "DOMINATED",
    "EMPTY",
    "FRONT",
    "GRID",
    "INK",
    "LINE",
    "MUTED",
    "PAPER",
    "REPEAT",
    "log_axis",
    "style",
]

INK, MUTED, PAPER, GRID, LINE = "#1c2430", "#5b6675", "#ffffff", "#e8ebef", "#c9d0d8"
FRONT, REPEAT, BASELINE, DOMINATED, EMPTY = "#0068a8", "#00795a", "#c24e00", "#a3acb8", "#eef3f8"
# On a dark page each colour above becomes this one; the page's script swaps them in figures.
DARK = {
    INK: "#e6eaf0",
    MUTED: "#9aa5b4",
    PAPER: "#151a21",
    GRID: "#27303b",
    LINE: "#3a4552",
    FRONT: "#5cb8f0",
    REPEAT: "#35c99c",
    BASELINE: "#ff9a55",
    DOMINATED: "#6b7787",
    EMPTY: "#1d2733",
}


def style(figure: go.Figure, *, x: str, y: str) -> None:
    """Gives a figure the look of the report, and its axes their titles (plain text)."""
    axis = {
        "gridcolor": GRID,
        "linecolor": LINE,
        "zeroline": False,
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 13}, "standoff": 10},
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": DOMINATED, "activecolor": INK},
        font={"size": 13, "color": INK},
        hoverlabel={"bgcolor": PAPER, "bordercolor": LINE, "font": {"color": INK}, "align": "left"},
        margin={"l": 56, "r": 12, "t": 24, "b": 48},
        xaxis=axis,
        yaxis=axis,
    )
    figure.update_xaxes(title_text=escaped(x))
    figure.update_yaxes(title_text=escaped(y))


def log_axis(figure: go.Figure, counts: Sequence[float]) -> None:
    """Makes the horizontal axis one of parameter counts, with ticks also on a short range.

    Args:
        figure: A figure that `style` has seen.
        counts: What is shown, each at least 1; may be empty.
    """
    decades = math.log10(max(counts) / min(counts)) if counts else 0.0
    figure.update_xaxes(type="log", tickformat="~s", dtick=1 if decades > 1.5 else "D2")
