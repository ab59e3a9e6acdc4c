"""A picture of a suggestion: how alike the scans are, and the slices to label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.geometry import SliceView, display_plane
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.suggest.scan_look import ScanLook
from fsmis_components.inferers.suggest.suggestion import RankedScan

_MOST_NAMES = 40  # names of more scans would overlap
_LONGEST_NAME = 18  # its end is shown, which tells scans apart
_MOST_SLICES = 6  # shown of a proposed scan
_MOST_SCANS = 3  # whose slices are shown
_PROPOSED, _LABELLED = "#e6550d", "#3182bd"


def save_picture(
    path: Path, ranked: Sequence[RankedScan], looks: Sequence[ScanLook], similarity: np.ndarray
) -> Path:
    """Write the similarity of all scans, in the order of the table, beside slices to label.

    Args:
        path: the PNG.
        ranked: scans of the folder, proposed ones first.
        looks: of all scans; those that are not ranked are labelled already.
        similarity: (K, K) of the looks.
    """
    own = [scan.place for scan in ranked]
    labelled = [place for place in range(len(looks)) if place not in set(own)]
    order = [*labelled, *own]
    proposed = [scan for scan in ranked if scan.chosen][:_MOST_SCANS]
    figure = Figure(figsize=(13, 6.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    halves = figure.add_gridspec(1, 2)
    left, right = (figure.add_subfigure(halves[0, half]) for half in (0, 1))
    _draw_matrix(left, order, len(labelled), [scan.place for scan in proposed], looks, similarity)
    rows = right.add_gridspec(len(proposed), 1)
    for row, scan in enumerate(proposed):
        _draw_slices(right.add_subfigure(rows[row, 0]), scan, looks[scan.place])
    return atomic_write(path, lambda unfinished: figure.savefig(unfinished, dpi=110))


def _draw_matrix(
    figure: SubFigure,
    order: list[int],
    num_labelled: int,
    proposed: list[int],
    looks: Sequence[ScanLook],
    similarity: np.ndarray,
) -> None:
    axes = figure.add_subplot()
    shown = similarity[np.ix_(order, order)].copy()
    np.fill_diagonal(shown, np.nan)  # a scan's likeness to itself says nothing
    drawn = axes.imshow(shown, cmap="viridis", interpolation="nearest")
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="similarity")
    if len(order) <= _MOST_NAMES:
        names = [_short(looks[place].name) for place in order]
        axes.set_xticks(range(len(order)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(order)), names, fontsize=8)
    else:
        axes.set(xticks=[], yticks=[])
    for row, place in enumerate(order):
        colour = _PROPOSED if place in proposed else _LABELLED if row < num_labelled else None
        if colour:
            box = Rectangle((-0.5, row - 0.5), len(order), 1, fill=False, ec=colour, lw=2)
            axes.add_patch(box)
    title = "How alike the scans are (orange: proposed"
    axes.set_title(title + (", blue: labelled)" if num_labelled else ")"), fontsize=10)


def _draw_slices(figure: SubFigure, scan: RankedScan, look: ScanLook) -> None:
    wanted = sorted({index for choice in scan.slices for index in choice.slices})
    places = np.linspace(0, len(wanted) - 1, min(len(wanted), _MOST_SLICES)).round()
    view = SliceView(load_image(scan.image), look.grid)
    columns = min(len(places), 3)
    for cell, index in enumerate(wanted[int(place)] for place in places):
        plane = view.slices(index, index + 1)[0, 0].numpy()
        axes = figure.add_subplot(-(-len(places) // columns), columns, cell + 1)
        low, high = np.quantile(plane, (0.005, 0.995))
        axes.imshow(display_plane(plane), cmap="gray", vmin=low, vmax=high)
        axes.set_axis_off()
        axes.set_title(f"{index + 1} of {view.depth}", fontsize=9)
    figure.suptitle(f"{scan.name}: slices to label", fontsize=10)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
