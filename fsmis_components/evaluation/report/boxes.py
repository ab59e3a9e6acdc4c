"""Box plots of Dice: a panel per structure, per series a box with and without the known extent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from fsmis_components.evaluation.records import WHOLE_VOLUME
from fsmis_components.evaluation.report.figures import (
    CHART_SETTINGS,
    INK,
    PROTOCOL_COLOURS,
    embedded,
    new_figure,
    shortened,
)
from fsmis_components.evaluation.report.series import Results, Unit

_UNIT = 0.21  # inches of a box's row
_BOTTOM = 0.45  # inches for the axis, above for the title
_TOP = 0.3
_NAME_ROWS = 1.15  # rows that a series' name takes
_GAP = 0.4  # rows between series
_GOLDEN = 0.618034  # spreads consecutive points evenly

Box = tuple[str, list[float]]  # protocol, Dice per case


def box_panels(results: Results) -> list[str]:
    """A figure per structure, before them one of the mean over structures if there are several."""
    drawn: list[tuple[str, Callable[..., Mapping[Unit, float]]]] = [
        (structure, partial(results.dice, structure=structure)) for structure in results.structures
    ]
    if len(drawn) > 1:
        drawn.insert(0, ("mean over structures", results.unit_means))
    return [_panel(title, rows, results) for title, dice in drawn if (rows := _rows(results, dice))]


def _panel(title: str, rows: Sequence[tuple[str, list[Box]]], results: Results) -> str:
    height = sum(_NAME_ROWS + len(boxes) + _GAP for _, boxes in rows)
    spoken = []
    with matplotlib.rc_context(CHART_SETTINGS):
        figure = new_figure(
            _UNIT * height + _BOTTOM + _TOP, left=0.05, bottom=_BOTTOM, right=0.05, top=_TOP
        )
        axes = figure.add_subplot()
        at = 0.0
        for name, boxes in rows:
            axes.text(0, at + 0.75, shortened(name), fontsize=9, va="center")
            at += _NAME_ROWS
            for protocol, values in boxes:
                draw_box(axes, at + 0.5, values, PROTOCOL_COLOURS[protocol])
                at += 1
                spoken.append(
                    f"{name}, {results.protocol_name(protocol)}: "
                    f"median {np.median(values):.1f}, mean {np.mean(values):.1f}"
                )
            at += _GAP
        axes.set(xlim=(-1.5, 112), ylim=(at, 0), yticks=[], xticks=range(0, 101, 20))
        axes.set_title(shortened(title))
        axes.set_xlabel("Dice (%), mean at the right", loc="left")
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_bounds(0, 100)
        return embedded(figure, f"Box plot of Dice, {title}. " + "; ".join(spoken))


def _rows(
    results: Results, dice: Callable[..., Mapping[Unit, float]]
) -> list[tuple[str, list[Box]]]:
    """Name and boxes of each series that has any."""
    rows = []
    for series in results.series:
        boxes = [
            (protocol, list(values.values()))
            for protocol in (*results.told, WHOLE_VOLUME)
            if (values := dice(series, protocol))
        ]
        if boxes:
            rows.append((results.name(series), boxes))
    return rows


def draw_box(axes: Axes, at: float, values: Sequence[float], colour: str) -> None:
    """A lying box: quartiles, median, whiskers to the extremes, every value, the mean as text."""
    lowest, lower, median, upper, highest = np.percentile(values, (0, 25, 50, 75, 100))
    axes.hlines(at, lowest, highest, color=colour, linewidth=1)
    axes.barh(at, upper - lower, 0.72, lower, color=colour, alpha=0.3, linewidth=0)
    axes.vlines(median, at - 0.36, at + 0.36, color=colour, linewidth=2.4, zorder=4)
    spread = (np.arange(len(values)) * _GOLDEN % 1 - 0.5) * 0.6
    axes.scatter(
        np.sort(values), at + spread, s=9, color=colour, alpha=0.75, linewidths=0, zorder=3
    )
    axes.text(102, at, f"{np.mean(values):.1f}", fontsize=8.5, va="center", color=INK)
