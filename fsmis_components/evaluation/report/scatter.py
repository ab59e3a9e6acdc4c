"""The price of not knowing the extent: label-blind Dice against Dice with the extent told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import matplotlib
import numpy as np

from fsmis_components.evaluation.report.figures import (
    CHART_SETTINGS,
    FAINT,
    TITLE_LETTERS,
    WIDTH,
    embedded,
    new_figure,
    shortened,
)
from fsmis_components.evaluation.report.series import Results, Series, Unit

Pairs = Mapping[Unit, tuple[float, float]]  # told, blind

_MARKERS = "osD^vPX*<>"  # a second sign beside the colour


def scatter_panels(results: Results) -> list[str]:
    """A figure per series and protocol that tells the extent, where both can be compared."""
    panels = []
    for told in results.told:
        for series in results.series:
            pairs = {
                structure: results.pairs(series, told, structure)
                for structure in results.structures
            }
            if any(pairs.values()):
                panels.append(_panel(results, series, told, pairs))
    return panels


def mean_price(pairs: Mapping[str, Pairs]) -> float:
    """Told minus blind, mean over structures within each unit first, as in the tables."""
    units: dict[Unit, list[float]] = defaultdict(list)
    for own in pairs.values():
        for unit, (told, blind) in own.items():
            units[unit].append(told - blind)
    return float(np.mean([np.mean(prices) for prices in units.values()]))


def _panel(results: Results, series: Series, told: str, pairs: Mapping[str, Pairs]) -> str:
    points = np.array([pair for own in pairs.values() for pair in own.values()])  # (points, 2)
    price = mean_price(pairs)
    name = results.name(series)
    told_name = results.protocol_name(told)
    with matplotlib.rc_context(CHART_SETTINGS):
        # as high as wide within its margins, so that the diagonal is one
        figure = new_figure(WIDTH + 0.15, left=0.55, bottom=0.5, right=0.1, top=0.3)
        axes = figure.add_subplot()
        axes.fill_between([0, 100], [0, 100], 0, color="#f3f5f7", linewidth=0, zorder=0)
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
        for index, (structure, own) in enumerate(pairs.items()):
            if own:
                told_dice, blind_dice = np.array(list(own.values())).T
                axes.scatter(
                    told_dice,
                    blind_dice,
                    s=24,
                    marker=_MARKERS[index % len(_MARKERS)],
                    color=results.colours[structure],
                    edgecolors="white",
                    linewidths=0.5,
                    alpha=0.9,
                    label=shortened(structure, 24),
                    zorder=3,
                )
        axes.legend(loc="upper left", handletextpad=0.1, borderpad=0, labelspacing=0.3)
        axes.text(98, 3, f"mean price {price:.1f}", ha="right", fontsize=11, fontweight="bold")
        axes.set(
            xlim=(-1, 101),
            ylim=(-1, 101),
        )
        axes.set_title(shortened(name, TITLE_LETTERS))
        axes.set_xlabel(f"{told_name}: Dice (%)")
        axes.set_ylabel("whole volume: Dice (%)")
        below = int(np.sum(points[:, 1] < points[:, 0]))
        return embedded(
            figure,
            f"{name}: whole-volume Dice against Dice under {told_name}; {below} of {len(points)} "
            f"points lie below the diagonal, on average {price:.1f} points.",
        )
