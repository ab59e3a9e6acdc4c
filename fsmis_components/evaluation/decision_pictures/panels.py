"""Rows and panels of a decision picture, as a method describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from fsmis_components.data.geometry import display_plane
from fsmis_components.evaluation.decision_pictures.marks import (
    FOUND,
    Area,
    Mark,
    draw_grey,
    draw_outline,
)
from fsmis_components.evaluation.decision_pictures.slice_pair import LabelledSlice, SlicePair
from fsmis_components.evaluation.report.figures import INK


@dataclass(frozen=True)
class Scale:
    """Colours for a kind of map, the same in all rows, so that they can be compared.

    Attributes:
        colours: name of matplotlib's.
        meaning: words below the bar.
        around_zero: from -x to x, x from where the decision falls: inside the label and where the
            map is positive. The air around a body would take the whole scale.
    """

    colours: str
    meaning: str
    around_zero: bool = False


MARGIN = Scale("PuOr_r", "margin: mask where above 0", around_zero=True)


@dataclass(frozen=True)
class ColourMap:
    """A map (H, W) at the working size of its slice."""

    values: np.ndarray
    scale: Scale


@dataclass(frozen=True)
class Panel:
    """One column of a row.

    Attributes:
        title: of the column, two lines.
        caption: below the panel.
        shown: the slice, or a map.
        label: outlined, bool (H, W).
        marks: drawn in this order, below the outline.
        note: on the panel, in a box; empty: none.
    """

    title: str
    caption: str
    shown: LabelledSlice | ColourMap
    label: np.ndarray
    marks: tuple[Mark, ...] = ()
    note: str = ""

    def draw(self, axes: Axes, scales: dict[Scale, Normalize]) -> None:
        """Draw all but the title.

        Args:
            axes: where.
            scales: of all maps.
        """
        axes.set_axis_off()
        if isinstance(self.shown, ColourMap):
            scale = self.shown.scale
            axes.imshow(display_plane(self.shown.values), cmap=scale.colours, norm=scales[scale])
        else:
            draw_grey(axes, self.shown.image[0, 0].numpy())
        for mark in self.marks:
            mark.draw(axes)
        draw_outline(axes, self.label)
        below: dict[str, Any] = {
            "transform": axes.transAxes,
            "ha": "center",
            "va": "top",
            "fontsize": 8.5,
        }
        axes.text(0.5, -0.02, self.caption, **below)
        if self.note:
            box: dict[str, Any] = {
                "boxstyle": "round,pad=0.3",
                "facecolor": "white",
                "edgecolor": INK,
            }
            axes.text(0.5, 0.96, self.note, bbox=box, **below)


@dataclass(frozen=True)
class Row:
    """How one structure is decided.

    Attributes:
        pair: its slices.
        panels: from the labelled slice to the mask, alike in all rows.
        dice: of the query slice at the scan's own resolution, percent.
        remark: a few words for the terminal; empty: none.
    """

    pair: SlicePair
    panels: tuple[Panel, ...]
    dice: float
    remark: str = ""


def label_plane(shown: LabelledSlice) -> np.ndarray:
    """The label of a slice, bool (H, W)."""
    return shown.mask[0, 0].numpy() > 0


def place(shown: LabelledSlice) -> str:
    """Where a slice lies, for a caption."""
    return f"case {shown.case}, slice {shown.number + 1}"


def map_panel(title: str, values: np.ndarray, scale: Scale, label: np.ndarray) -> Panel:
    """A map whose caption tells its mean inside and outside of the label."""
    if label.any():
        inside, outside = values[label].mean(), values[~label].mean()
        caption = f"mean inside {inside:.2f}, outside {outside:.2f}"
    else:  # less than a pixel at the working size
        caption = f"mean {values.mean():.2f}"
    return Panel(title, caption, ColourMap(values, scale), label)


def mask_panel(query: LabelledSlice, margin: np.ndarray, dice: float) -> Panel:
    """The mask that a margin gives, beside the label."""
    return Panel(
        "Mask and the\nquery's own label",
        f"{place(query)}: Dice {dice:.1f} %",
        query,
        label_plane(query),
        (Area(margin > 0, FOUND),),
    )
