"""Small charts as SVG: one look for all, the same bytes for the same numbers."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; they differ in lightness as well.
PROTOCOL_COLOURS = {
    "ep1-alp": "#e69f00",
    "ep1-qnet": "#cc79a7",
    "oracle": "#009e73",
    "wv": "#0b4f8a",
}
INK = "#22303c"
FAINT = "#8a97a3"
GRID = "#dfe4e8"
TITLE_LETTERS = 36  # of a heading beside an axis
WIDTH = 4.3  # inches of a panel: its letters have the size of the text on a telephone

CHART_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "fsmis",  # names inside an SVG are random otherwise
    "svg.fonttype": "path",  # the reader's machine may lack the font
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def new_figure(height: float, *, left: float, bottom: float, right: float, top: float) -> Figure:
    """A figure of `WIDTH` that belongs to no window and no global list.

    Args:
        height: inches, as are the margins about its axes.
        left: margin.
        bottom: margin.
        right: margin.
        top: margin.
    """
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    # fixed margins: a layout engine would draw each figure several times to find them
    figure.subplots_adjust(
        left / WIDTH, bottom / height, 1 - right / WIDTH, 1 - top / height, hspace=0.1
    )
    return figure


def embedded(figure: Figure, description: str) -> str:
    """The chart as an HTML figure.

    Args:
        figure: drawn within `matplotlib.rc_context(CHART_SETTINGS)`.
        description: what it shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(CHART_SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="panel"><img src="data:image/svg+xml;base64,{data}" '
        f'alt="{escape(description)}"></figure>'
    )


def shortened(text: str, letters: int = 46) -> str:
    """A name that fits into a panel; begin and end are kept, as names differ there."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end].rstrip()}\u2026{text[-end:].lstrip()}"
