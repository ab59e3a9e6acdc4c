"""Charts along the slices: Dice within the true extent, and what is predicted beyond it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from fsmis_components.evaluation.records import WHOLE_VOLUME
from fsmis_components.evaluation.report.along_z import (
    CENTRES,
    STEP,
    Profile,
    mean_profile,
)
from fsmis_components.evaluation.report.figures import (
    CHART_SETTINGS,
    PROTOCOL_COLOURS,
    TITLE_LETTERS,
    embedded,
    new_figure,
    shortened,
)
from fsmis_components.evaluation.report.series import Results, Series

_OUTSIDE = "#fbeceb"  # where every predicted voxel is wrong
_FALSE = "#e8928a"
_TRUE = "#d5dade"


def z_panels(results: Results) -> list[str]:
    """A figure per series, mean over structures."""
    return [
        panel
        for series in results.series
        if (panel := _panel_of(results, series, results.name(series), results.structures))
    ]


def z_panels_of_structures(results: Results, series: Series) -> list[str]:
    """A figure per structure of one series."""
    return [
        panel
        for structure in results.structures
        if (panel := _panel_of(results, series, structure, [structure]))
    ]


def _panel_of(results: Results, series: Series, title: str, structures: list[str]) -> str | None:
    profiles = {}
    for protocol in (*results.told, WHOLE_VOLUME):
        rows = (
            (row, counts)
            for row, counts in results.counts(series, protocol)
            if row.structure in structures
        )
        own = mean_profile(rows)
        if own is not None:
            profiles[protocol] = own
    return _panel(results, title, profiles) if profiles else None


def _panel(results: Results, title: str, profiles: Mapping[str, Profile]) -> str:
    with matplotlib.rc_context(CHART_SETTINGS):
        figure = new_figure(3.9, left=0.55, bottom=0.5, right=0.1, top=0.3)
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(1.15, 1))
        for axes in (upper, lower):
            axes.axvspan(-0.5, 0, color=_OUTSIDE, linewidth=0, zorder=0)
            axes.axvspan(1, 1.5, color=_OUTSIDE, linewidth=0, zorder=0)
        for protocol, own in profiles.items():
            colour = PROTOCOL_COLOURS[protocol]
            style = "-" if protocol == WHOLE_VOLUME else "--"
            upper.plot(CENTRES, own.dice, style, marker="o", markersize=3, color=colour)
            _draw_area(lower, protocol, own)
        upper.set(ylim=(0, 100), ylabel="Dice (%)", yticks=range(0, 101, 20))
        upper.set_title(shortened(title, TITLE_LETTERS))
        lower.set(xlim=(-0.45, 1.45), ylabel="predicted area")
        lower.set_ylim(0, max(1.6, 1.05 * _highest(profiles)))
        lower.set_xticks(
            [CENTRES[0], 0, 0.5, 1, CENTRES[-1]],
            ["farther", "0\nbegins", "0.5", "1\nends", "farther"],
        )
        lower.text(0.5, 0.06, "true area", ha="center", color="#5c6872", fontsize=8.5)
        figure.align_ylabels()
        return embedded(figure, f"Dice over z, {title}. {_in_words(results, profiles)}")


def _draw_area(axes: Axes, protocol: str, own: Profile) -> None:
    colour = PROTOCOL_COLOURS[protocol]
    inside = (CENTRES > 0) & (CENTRES < 1)
    if protocol != WHOLE_VOLUME:
        # told the extent, a method cannot predict beyond it: nothing to draw there
        axes.plot(CENTRES[inside], own.predicted[inside], "--", color=colour, linewidth=1.6)
        return
    near = slice(1, -1)
    axes.bar(CENTRES[inside], own.labelled[inside], STEP, color=_TRUE, zorder=1)
    axes.bar(CENTRES[near][~inside[near]], own.predicted[near][~inside[near]], STEP, color=_FALSE)
    axes.plot(CENTRES[near], own.predicted[near], color=colour, linewidth=1.6)
    # the outermost bins have no width of their own, so they are not joined to the line
    axes.plot(
        CENTRES[[0, -1]], own.predicted[[0, -1]], "o", markersize=4, color=colour, clip_on=False
    )


def _highest(profiles: Mapping[str, Profile]) -> float:
    values = np.concatenate([own.predicted for own in profiles.values()])
    return float(np.nanmax(values))


def _in_words(results: Results, profiles: Mapping[str, Profile]) -> str:
    ends = (np.abs(CENTRES - 0.5) > 0.5 - STEP) & (np.abs(CENTRES - 0.5) < 0.5)
    middle = np.abs(CENTRES - 0.5) < 0.2
    return "; ".join(
        f"{results.protocol_name(protocol)}: {np.nanmean(own.dice[middle]):.0f} in the middle, "
        f"{np.nanmean(own.dice[ends]):.0f} at the ends"
        for protocol, own in profiles.items()
        if np.isfinite(own.dice[middle]).any() and np.isfinite(own.dice[ends]).any()
    )
