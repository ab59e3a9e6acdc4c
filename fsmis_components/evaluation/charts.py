"""The charts of a benchmark's report, as pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fsmis_components.evaluation.records import WHOLE_VOLUME, SliceCounts
from fsmis_components.evaluation.summary import UNIT

# Okabe and Ito's colours, which colour-blind readers tell apart; they differ in lightness as well.
PROTOCOL_COLOURS = {
    "ep1-alp": "#e69f00",
    "ep1-qnet": "#cc79a7",
    "oracle": "#009e73",
    "wv": "#0b4f8a",
}
WIDTH = 4.3  # inches of a panel: its letters have the size of the text on a telephone
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "fsmis",  # names inside an SVG are random otherwise
    "svg.fonttype": "path",  # the reader's machine may lack the font
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dfe4e8",
}
# places along z: 0 is where the label begins, 1 where it ends; beyond -0.3 and 1.3 one bin each
BORDERS = np.round(np.arange(-0.3, 1.35, 0.1), 1)
CENTRES = np.append(BORDERS, 1.4) - 0.05
_LETTERS = 40  # of a heading
_GOLDEN = 0.618034  # spreads consecutive points evenly


def box_chart(title: str, lines: Sequence[tuple[str, str, Sequence[float]]]) -> dict[str, str]:
    """Lying boxes of Dice: quartiles, median, extremes, a point per case, the mean as text.

    Args:
        title: of the chart.
        lines: name of the method, protocol, and Dice in percent of each case.

    Returns:
        "data": the address of the picture; "alt": it in words.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = _figure(0.36 * len(lines) + 0.8)
        axes = figure.add_subplot()
        for at, (name, protocol, values) in enumerate(lines):
            colour = PROTOCOL_COLOURS[protocol]
            lowest, lower, median, upper, highest = np.percentile(values, (0, 25, 50, 75, 100))
            axes.hlines(at, lowest, highest, color=colour, linewidth=1)
            axes.barh(at, upper - lower, 0.4, lower, color=colour, alpha=0.3, linewidth=0)
            axes.vlines(median, at - 0.2, at + 0.2, color=colour, linewidth=2.4)
            spread = (np.arange(len(values)) * _GOLDEN % 1 - 0.5) * 0.35
            axes.scatter(np.sort(values), at + spread, s=9, color=colour, linewidths=0)
            axes.text(0, at - 0.28, _shortened(name), va="bottom", fontsize=8)
            axes.text(102, at, f"{np.mean(values):.1f}", va="center", fontsize=8.5)
        axes.set(xlim=(-1.5, 112), ylim=(len(lines) - 0.6, -0.9), yticks=[])
        axes.set_xticks(range(0, 101, 20))
        axes.set_title(_shortened(title))
        axes.set_xlabel("Dice (%), mean at the right", loc="left")
        axes.spines["left"].set_visible(False)
        spoken = "; ".join(
            f"{name}, {protocol}: median {np.median(values):.1f}, mean {np.mean(values):.1f}"
            for name, protocol, values in lines
        )
        return _embedded(figure, f"Box plot of Dice, {title}. {spoken}")


def z_chart(title: str, profiles: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Dice per slice and predicted area from where the label begins to where it ends.

    Args:
        title: of the chart.
        profiles: of `mean_profile`, by protocol.

    Returns:
        As `box_chart`.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = _figure(3.9)
        upper, lower = figure.subplots(2, sharex=True)
        for axes in (upper, lower):
            for begin in (-0.5, 1):  # every predicted voxel is wrong there
                axes.axvspan(begin, begin + 0.5, color="#fbeceb", linewidth=0, zorder=0)
        for protocol, own in profiles.items():
            style = "-" if protocol == WHOLE_VOLUME else "--"
            colour = PROTOCOL_COLOURS[protocol]
            upper.plot(CENTRES, own.dice, style, marker="o", markersize=3, color=colour)
            # told the extent, a method cannot predict beyond it: nothing to draw there
            shown = (CENTRES > 0) & (CENTRES < 1) | (protocol == WHOLE_VOLUME)
            lower.plot(CENTRES[shown], own.predicted[shown], style, color=colour)
            if protocol == WHOLE_VOLUME:
                lower.bar(CENTRES, own.labelled, 0.1, color="#d5dade", label="label")
        upper.set(ylim=(0, 100), ylabel="Dice (%)")
        upper.set_title(_shortened(title))
        lower.set(xlim=(-0.45, 1.45), ylabel="predicted area")
        lower.set_ylim(bottom=0)
        names = ["farther", "0\nbegins", "0.5", "1\nends", "farther"]
        lower.set_xticks([CENTRES[0], 0, 0.5, 1, CENTRES[-1]], names)
        middle = np.abs(CENTRES - 0.5) < 0.2
        spoken = "; ".join(
            f"{protocol}: {own.dice[middle].mean():.0f} in the middle"
            for protocol, own in profiles.items()
        )
        return _embedded(figure, f"Dice over z, {title}. {spoken}")


def mean_profile(rows: pd.DataFrame, counts: Sequence[SliceCounts]) -> pd.DataFrame | None:
    """Means per place along z: choices of support first, then cases and structures.

    Args:
        rows: of one method and protocol, as of `rows_frame`; `row` is the place among the counts.
        counts: voxels per slice.

    Returns:
        A line per place of `CENTRES`: "dice" in percent of slices within the label's range, NaN
        elsewhere and where neither side has a voxel; "predicted" and "labelled": area per slice in
        units of the structure's mean area. None where no label holds a structure.
    """
    slices = []
    for row in rows.itertuples():
        found = pd.DataFrame(vars(counts[row.row]), dtype=float)
        held = np.flatnonzero(found.labelled)
        if not len(held):
            continue
        length = held[-1] - held[0] + 1
        place = (np.arange(len(found)) - held[0] + 0.5) / length
        total = found.predicted + found.labelled
        found["dice"] = (200 * found.overlap / total).where((place > 0) & (place < 1) & (total > 0))
        found[["predicted", "labelled"]] *= length / found.labelled.sum()
        # a small part of a bin keeps places on a border in the bin above it
        found["bin"] = np.searchsorted(BORDERS, place + 1e-7, side="right")
        means = found.groupby("bin")[["dice", "predicted", "labelled"]].mean()
        slices.append(means.assign(fold=row.fold, case=row.case, structure=row.structure))
    if not slices:
        return None
    table = pd.concat(slices).reset_index()
    per_case = table.groupby([*UNIT, "structure", "bin"]).mean()
    return per_case.groupby("bin").mean().reindex(range(len(CENTRES)))


def _figure(height: float) -> Figure:
    """A figure that belongs to no window and no global list."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _embedded(figure: Figure, words: str) -> dict[str, str]:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"data": f"data:image/svg+xml;base64,{data}", "alt": words}


def _shortened(text: str) -> str:
    """A name that fits into a panel; begin and end are kept, as names differ there."""
    half = _LETTERS // 2
    return text if len(text) <= _LETTERS else f"{text[:half]}\u2026{text[-half:]}"
