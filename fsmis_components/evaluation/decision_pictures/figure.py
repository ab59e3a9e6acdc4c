"""The picture of a network's decisions: a row for each structure, panels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fsmis_components.data.atomic import atomic_write
from fsmis_components.evaluation.decision_pictures.marks import FOUND
from fsmis_components.evaluation.decision_pictures.panels import ColourMap, Row, Scale
from fsmis_components.evaluation.report.figures import CHART_SETTINGS, FAINT, INK

_PANEL = 2.15  # inches, width and height
_GAP = 0.07
_LEFT, _RIGHT, _TOP, _CAPTION, _BOTTOM = 0.62, 0.1, 1.25, 0.24, 1.0
_SHOWN = 99.5  # percent of the values lie within a scale
_THIRDS = ("lower third", "middle third", "upper third")

Key = tuple[str, str]  # a colour and what it marks


def draw_rows(
    path: str | Path, rows: Sequence[Row], keys: Sequence[Key], title: str, note: str = ""
) -> Path:
    """Write a PNG with a row for each structure.

    Args:
        path: the picture.
        rows: at least one, of the same method.
        keys: colours of the legend, beside those of the label and of what is found; one that is
            not drawn is left out.
        title: heading.
        note: smaller, below it, one or two lines.

    Returns:
        The path.
    """
    with matplotlib.rc_context({**CHART_SETTINGS, "axes.grid": False}):
        figure = _figure(rows, keys, title, note)
        options: dict[str, Any] = {"format": "png", "dpi": 110, "metadata": {"Software": None}}
        return atomic_write(Path(path), lambda unfinished: figure.savefig(unfinished, **options))


def _figure(rows: Sequence[Row], keys: Sequence[Key], title: str, note: str) -> Figure:
    width = _LEFT + len(rows[0].panels) * (_PANEL + _GAP) + _RIGHT
    height = _TOP + len(rows) * (_PANEL + _CAPTION) + _BOTTOM
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    scales = _scales(rows)
    for number, row in enumerate(rows):
        bottom = height - _TOP - number * (_PANEL + _CAPTION) - _PANEL
        for column, panel in enumerate(row.panels):
            left = _LEFT + column * (_PANEL + _GAP)
            axes = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
            panel.draw(axes, scales)
            if number == 0:
                axes.set_title(panel.title, loc="center", fontsize=10.5)
        middle = (bottom + _PANEL / 2) / height
        sideways: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center"}
        name, third = row.pair.structure.name, _THIRDS[row.pair.section]
        figure.text(0.2 / width, middle, name, fontsize=11.5, fontweight="bold", **sideways)
        figure.text(0.44 / width, middle, third, fontsize=9, **sideways)
    left = _LEFT / width
    figure.text(left, 1 - 0.16 / height, title, fontsize=13, fontweight="bold", va="top")
    figure.text(left, 1 - 0.47 / height, note, fontsize=9.5, va="top")
    runs = _runs(rows[0])
    drawn = {mark.colour for panel in rows[0].panels for mark in panel.marks}
    keys = [(colour, meaning) for colour, meaning in keys if colour in drawn]
    _draw_legend(figure, keys, 2 if runs[0][1] > 1 else 1)
    for first, panels, scale in runs:
        if scale is not None:
            _draw_bar(figure, first, panels, scale, scales[scale])
    return figure


def _runs(row: Row) -> list[tuple[int, int, Scale | None]]:
    """Neighbouring columns that share a scale: the first, how many, and which; None: slices."""

    def scale(column: int) -> Scale | None:
        shown = row.panels[column].shown
        return shown.scale if isinstance(shown, ColourMap) else None

    groups = [(found, list(run)) for found, run in groupby(range(len(row.panels)), scale)]
    return [(run[0], len(run), found) for found, run in groups]


def _scales(rows: Sequence[Row]) -> dict[Scale, Normalize]:
    """The range of each scale, over all rows and columns that have it."""
    maps: dict[Scale, list[np.ndarray]] = {}
    for row in rows:
        for panel in row.panels:
            if isinstance(panel.shown, ColourMap):
                values, scale = panel.shown.values, panel.shown.scale
                counted = (values > 0) | panel.label if scale.around_zero else np.s_[:]
                maps.setdefault(scale, []).append(values[counted].ravel())
    return {scale: _range(np.concatenate(found), scale) for scale, found in maps.items()}


def _range(values: np.ndarray, scale: Scale) -> Normalize:
    if scale.around_zero:
        largest = float(np.percentile(np.abs([*values, 0.0]), _SHOWN))
        largest = max(largest, 1e-6)
        return Normalize(-largest, largest)
    low, high = np.percentile(values, (100 - _SHOWN, _SHOWN))
    return Normalize(float(low), float(max(high, low + 1e-6)))


def _draw_legend(figure: Figure, keys: Sequence[Key], columns: int) -> None:
    """Below the grey slices at the left."""
    width, height = figure.get_size_inches()
    handles = [
        Line2D([], [], color="black", linewidth=1.4, linestyle=(0, (3, 1.5)), label="label"),
        Line2D([], [], color=FOUND, linewidth=6, alpha=0.8, label="found by the network"),
        *(Line2D([], [], color=colour, linewidth=6, label=meaning) for colour, meaning in keys),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(_LEFT / width, (_BOTTOM - 0.12) / height),
        ncols=columns,
        labelspacing=0.5 if columns > 1 else 0.25,
        fontsize=9,
    )


def _draw_bar(figure: Figure, first: int, panels: int, scale: Scale, norm: Normalize) -> None:
    """Below its maps."""
    width, height = figure.get_size_inches()
    left = _LEFT + first * (_PANEL + _GAP)
    length = panels * (_PANEL + _GAP) - _GAP
    axes = figure.add_axes(
        ((left + 0.12) / width, 0.62 / height, (length - 0.24) / width, 0.12 / height)
    )
    mappable = ScalarMappable(norm, scale.colours)
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", extend="both")
    bar.outline.set_edgecolor(FAINT)
    bar.set_label(scale.meaning, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8.5)
