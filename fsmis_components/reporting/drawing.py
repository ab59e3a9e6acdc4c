"""Pictures of slices: outlines and filled masks on grey values, several slices in one mosaic."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageColor

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.geometry import SliceGrid, SliceView, display_plane, own_extent_grid
from fsmis_components.data.intensity import Normalisation, shown_range
from fsmis_components.data.volumes import Volume
from fsmis_components.support.support_set import Structure

# of an overlay
MAX_SLICES = 12
COLUMNS = 4
TILE = 300  # pixels of a slice's width, about: small slices are enlarged by a whole factor
DPI = 100
_SLAB = 16  # slices of the label map that are compared at once
# of the sheets of all slices
SHEET_COLUMNS = 8
MOST_SLICES = 64  # spread over the scan, where it has more
SIDE = 224  # pixels of a slice's larger side at the most; small slices are not enlarged
_QUALITY = 80  # of JPEG
_FILL = 90  # opacity of a mask, of 255; its border is opaque
_CUT = 0.005  # share of the shown voxels that becomes black, and as many white


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
    slices = _cut_slices(view, chosen)
    if normalisation is not None and (limits := shown_range(image, normalisation)):
        slices = slices.clip(*limits)
    picture = _mosaic(slices, COLUMNS, display_plane(slices[0]).min())
    height, width = display_plane(slices[0]).shape
    corners = [(n // COLUMNS * height, n % COLUMNS * width) for n in range(len(chosen))]
    # pixels as they are and one axes for all: resampling, or a subplot per slice, takes far longer
    scale = max(1, round(TILE / slices.shape[-2]))
    height, width = (scale * length / DPI for length in picture.shape)
    margin = 0.45  # inches for the title above and for the legend below
    figure = Figure(figsize=(width, height + 2 * margin), facecolor="white")  # without a window
    grey = _grey(picture, np.quantile(slices, (_CUT, 1 - _CUT)))[..., None].repeat(3, 2)
    enlarged = grey.repeat(scale, 0).repeat(scale, 1)
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
    for index, (top, left) in zip(chosen, corners, strict=True):
        text = f"{index + 1} of {view.depth}"
        axes.text(left + 3, top + 3, text, color="white", fontsize=7, va="top")
    handles = []
    for structure, found in zip(structures, np.asarray(held[0].any(0)), strict=True):
        name = structure.name if found else f"{structure.name} (not found)"
        handles.append(Line2D([], [], color=structure.colour, linewidth=3, label=name))
    columns = min(len(structures), 2 * COLUMNS)
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def save_sheets(
    scan_path: Path,
    mask_path: Path,
    image: Volume,
    label: np.ndarray,
    structures: Sequence[Structure],
    grid: SliceGrid,
    normalisation: Normalisation,
) -> int:
    """Write all slices of a scan, and their masks to be laid over them; returns how many it has.

    The scan is JPEG in grey, CT by the window of `normalisation`, the masks are PNG in the colours
    of the structures on a transparent ground; each is written whole or not at all. Pixels are
    square in millimetres. Eight slices stand in a row, turned as by `display_plane`. Of a scan of D
    slices n = min(D, 64) are on it: slice i (D - 1) / (n - 1), rounded down, is the i-th.
    """
    side = min(SIDE, max(SliceView(image, grid).native_size))
    view = SliceView(image, own_extent_grid(image, replace(grid, spatial_size=side)))
    count = min(view.depth, MOST_SLICES)
    numbers = [index * (view.depth - 1) // max(count - 1, 1) for index in range(count)]

    slices = _cut_slices(view, numbers)
    limits = shown_range(image, normalisation) or np.quantile(slices, (_CUT, 1 - _CUT))
    scan = Image.fromarray(_mosaic(_grey(slices, limits), SHEET_COLUMNS, 0))

    marks = SliceView(Volume(label, image.affine, image.source, image.oriented), view.grid)
    # nearest voxels
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(view.working_size, view.native_size, strict=True)
    )
    planes = (marks.native(n, n + 1)[0][np.ix_(rows, columns)] for n in numbers)
    masks = Image.fromarray(_painted(_mosaic(planes, SHEET_COLUMNS, 0), structures))

    atomic_write(scan_path, lambda path: scan.save(path, "jpeg", quality=_QUALITY))
    atomic_write(mask_path, lambda path: masks.save(path, "png", compress_level=3))
    return view.depth


def embedded(figure: Figure) -> str:
    """The address of a figure that stands in a page itself; the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _cut_slices(view: SliceView, numbers: Sequence[int]) -> np.ndarray:
    return torch.cat([view.slices(number, number + 1)[0] for number in numbers]).numpy()


def _mosaic(slices: Iterable[np.ndarray], columns: int, fill: float) -> np.ndarray:
    """Slices (h, w) upright beside and below each other."""
    pictures = [display_plane(plane) for plane in slices]
    columns = min(columns, len(pictures))
    pictures += [np.full_like(pictures[0], fill)] * (-len(pictures) % columns)
    rows = (pictures[i : i + columns] for i in range(0, len(pictures), columns))
    return np.vstack([np.hstack(row) for row in rows])


def _grey(values: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Intensities as bytes, black at the lower limit and white at the upper one."""
    lower, upper = limits
    shares = np.clip((values - lower) / max(upper - lower, 1e-6), 0.0, 1.0)
    return np.rint(shares * 255).astype(np.uint8)


def _held_values(view: SliceView, values: Sequence[int]) -> np.ndarray:
    """Which slices of a label volume hold which value, bool (D, N); looks at a few at a time."""
    slabs = (view.native(at, min(at + _SLAB, view.depth)) for at in range(0, view.depth, _SLAB))
    held = [np.stack([(slab == value).any((1, 2)) for value in values], 1) for slab in slabs]
    return np.concatenate(held)


def _chosen_slices(held: np.ndarray) -> list[int]:
    """Up to twelve slices spread over those marked in bool (D,), or over all where none is."""
    candidates = np.flatnonzero(held)
    if not len(candidates):
        candidates = np.arange(len(held))
    positions = np.linspace(0, len(candidates) - 1, min(MAX_SLICES, len(candidates)))
    return candidates[positions.round().astype(int)].tolist()


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


def _painted(values: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """Label values (h, w) as colours with opacity, bytes (h, w, 4)."""
    painted = np.zeros((*values.shape, 4), np.uint8)
    around = np.pad(values, 1)
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    border = np.any([values != neighbour for neighbour in neighbours], axis=0)
    for structure in structures:
        inside = values == structure.value
        painted[inside] = (*ImageColor.getrgb(structure.colour)[:3], _FILL)
        painted[inside & border, 3] = 255
    return painted
