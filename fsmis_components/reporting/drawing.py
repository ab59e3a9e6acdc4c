"""Pictures of slices: outlines and filled masks on grey values, several slices in one mosaic."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.geometry import SliceGrid, SliceView, display_plane
from fsmis_components.data.intensity import Normalisation, shown_range
from fsmis_components.data.volumes import Volume
from fsmis_components.support.support_set import Structure

MAX_SLICES = 12
COLUMNS = 4
TILE = 300  # pixels of a slice's width, about: small slices are enlarged by a whole factor
DPI = 100
_SLAB = 16  # slices of the label map that are compared at once


def save_overlay(
    path: str | Path,
    image: Volume,
    label: np.ndarray,
    structures: Sequence[Structure],
    grid: SliceGrid,
    title: str,
    normalisation: Normalisation | None = None,
    truth: np.ndarray | None = None,
) -> Path:
    """Write what `draw_overlay` draws as a PNG, whole or not at all."""
    figure = draw_overlay(image, label, structures, grid, title, truth, normalisation)
    options: dict[str, Any] = {"format": "png", "dpi": DPI, "pil_kwargs": {"compress_level": 3}}
    return atomic_write(Path(path), lambda unfinished: figure.savefig(unfinished, **options))


def draw_overlay(
    image: Volume,
    label: np.ndarray,
    structures: Sequence[Structure],
    grid: SliceGrid,
    title: str,
    truth: np.ndarray | None = None,
    normalisation: Normalisation | None = None,
) -> Figure:
    """Draw up to twelve slices, structures outlined in their colours.

    The slices are spread over those that hold a structure, or over the scan where none does. They
    are turned as radiologists see them, see `display_plane`.

    Args:
        image: the scan.
        label: (X, Y, Z) label values on the scan's grid.
        structures: names, values and colours.
        grid: working geometry, whose slices are shown.
        title: heading.
        truth: what is outlined beside the label, white and dashed.
        normalisation: CT is shown by its window; None: all scans by the range of their values.
    """
    view = SliceView(image, grid)
    values = [structure.value for structure in structures]
    volumes = [label] if truth is None else [label, truth]
    mask_views = [SliceView(Volume(each, image.affine, image.source), grid) for each in volumes]
    held = [_held_values(mask_view, values) for mask_view in mask_views]
    chosen = _chosen_slices(np.asarray(np.any(held, axis=(0, 2))))
    slices = cut_slices(view, chosen)
    if normalisation is not None and (limits := shown_range(image, normalisation)):
        slices = slices.clip(*limits)
    picture, corners = mosaic(slices)
    # pixels as they are and one axes for all: resampling, or a subplot per slice, takes far longer
    scale = max(1, round(TILE / slices.shape[-2]))
    height, width = (scale * length / DPI for length in picture.shape)
    margin = 0.45  # inches for the title above and for the legend below
    figure = new_figure(width, height + 2 * margin)
    enlarged = grey(picture, slices).repeat(scale, 0).repeat(scale, 1)
    # below the axes, whose outlines would be hidden otherwise
    figure.figimage(enlarged, xo=0, yo=round(margin * DPI), zorder=-1, origin="upper")
    axes = figure.add_axes((0, margin / (height + 2 * margin), 1, height / (height + 2 * margin)))
    axes.set_axis_off()
    axes.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    for number, mask_view in enumerate(mask_views):
        masks = torch.cat([mask_view.labels(index, index + 1, values) for index in chosen]).numpy()
        for structure, slices_of_it in zip(structures, masks.transpose(1, 0, 2, 3), strict=True):
            colour, style = ("white", "dashed") if number else (structure.colour, "solid")
            lines = _outlines(slices_of_it, corners)
            axes.add_collection(
                LineCollection(lines, colors=[colour], linestyles=style, linewidths=1.3)
            )
    write_numbers(axes, chosen, view.depth, corners)
    handles = [
        _legend(structure, bool(slices_of_it.any()))
        for structure, slices_of_it in zip(structures, held[0].T, strict=True)
    ]
    columns = min(len(structures), 2 * COLUMNS)
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def embedded(figure: Figure) -> str:
    """The address of a figure that stands in a page itself; the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A white figure (inches) that is drawn without any window."""
    figure = Figure(figsize=(width, height), facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def cut_slices(view: SliceView, numbers: Sequence[int]) -> np.ndarray:
    """Slices (n, H, W) of a scan."""
    return torch.cat([view.slices(number, number + 1)[0] for number in numbers]).numpy()


def mosaic(slices: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Slices (n, h, w) upright beside each other, and the top left corner of each."""
    pictures = [display_plane(plane) for plane in slices]
    height, width = pictures[0].shape
    columns = min(COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    corners = [
        (index // columns * height, index % columns * width) for index in range(len(pictures))
    ]
    whole = np.full((rows * height, columns * width), pictures[0].min(), np.float32)
    for picture, (top, left) in zip(pictures, corners, strict=True):
        whole[top : top + height, left : left + width] = picture
    return whole, corners


def write_numbers(
    axes: Axes, numbers: Sequence[int], depth: int, corners: Sequence[tuple[int, int]]
) -> None:
    """Write which slice of a scan each one of a mosaic is, counted from 1."""
    for number, (top, left) in zip(numbers, corners, strict=True):
        text = f"{number + 1} of {depth}"
        axes.text(left + 3, top + 3, text, color="white", fontsize=7, va="top")


def grey(picture: np.ndarray, of: np.ndarray, cut: float = 0.005) -> np.ndarray:
    """Intensities (h, w) as bytes (h, w, 3).

    Args:
        picture: what is shown.
        of: values of which the share `cut` becomes black, and as many white.
        cut: the share.
    """
    lower, upper = np.quantile(of, (cut, 1 - cut))
    share = np.clip((picture - lower) / max(upper - lower, 1e-6), 0.0, 1.0)
    return np.repeat(np.rint(share * 255.0).astype(np.uint8)[..., None], 3, axis=2)


def _held_values(view: SliceView, values: Sequence[int]) -> np.ndarray:
    """Which slices of a label volume hold which value, bool (D, N); looks at a few at a time."""
    held = np.zeros((view.depth, len(values)), bool)
    for start in range(0, view.depth, _SLAB):
        stop = min(start + _SLAB, view.depth)
        slab = view.native(start, stop)
        held[start:stop] = np.stack([(slab == value).any((1, 2)) for value in values], axis=1)
    return held


def _chosen_slices(held: np.ndarray) -> list[int]:
    """Up to twelve slices spread over those marked in bool (D,), or over all where none is."""
    candidates = np.flatnonzero(held)
    if not len(candidates):
        candidates = np.arange(len(held))
    positions = np.linspace(0, len(candidates) - 1, min(MAX_SLICES, len(candidates)))
    return [int(candidates[round(position)]) for position in positions]


def _outlines(masks: np.ndarray, corners: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Lines (n, 2), across and down in the mosaic, half way between mask and background."""
    lines = []
    for mask, (top, left) in zip(masks, corners, strict=True):
        picture = np.pad(display_plane(mask), 1)  # closed also at the border of the slice
        rows, columns = np.nonzero(picture)
        if not len(rows):
            continue
        y, x = rows.min() - 1, columns.min() - 1
        part = picture[y : rows.max() + 2, x : columns.max() + 2]
        offset = np.array([left + x - 1, top + y - 1])
        lines += [line + offset for line in contour_generator(z=part).lines(0.5)]
    return lines


def _legend(structure: Structure, found: bool) -> Line2D:
    label = structure.name if found else f"{structure.name} (not found)"
    return Line2D([], [], color=structure.colour, linewidth=3, label=label)
