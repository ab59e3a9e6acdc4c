"""All slices of a scan on one sheet, and their masks on another that is laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.geometry import SliceGrid, SliceView, display_plane, own_extent_grid
from fsmis_components.data.intensity import Normalisation, shown_range
from fsmis_components.data.volumes import Volume
from fsmis_components.reporting.drawing import cut_slices
from fsmis_components.support.support_set import Structure

SHEET_COLUMNS = 8
MOST_SLICES = 64  # spread over the scan, where it has more
SIDE = 224  # pixels of a slice's larger side at the most; small slices are not enlarged
_QUALITY = 80  # of JPEG
_FILL = 90  # opacity of a mask, of 255; its border is opaque
_CUT = 0.005  # share of the shown voxels that becomes black, and as many white


def save_sheets(
    scan_path: Path,
    mask_path: Path,
    image: Volume,
    label: np.ndarray,
    structures: Sequence[Structure],
    grid: SliceGrid,
    normalisation: Normalisation,
) -> int:
    """Write both sheets, each whole or not at all; pixels are square in millimetres.

    Eight slices stand in a row, turned as by `display_plane`. Of a scan of D slices n =
    min(D, 64) are on it: slice i (D - 1) / (n - 1), rounded down, is the i-th.

    Args:
        scan_path: receives the scan in grey, as JPEG; CT by the window of `normalisation`.
        mask_path: receives the structures in their colours on a transparent ground, as PNG.
        image: the scan.
        label: (X, Y, Z) label values on the scan's grid.
        structures: values and colours.
        grid: working geometry, whose slices are shown.
        normalisation: how intensities are taken.

    Returns:
        D, the slices of the scan.
    """
    side = min(SIDE, max(SliceView(image, grid).native_size))
    view = SliceView(image, own_extent_grid(image, replace(grid, spatial_size=side)))
    count = min(view.depth, MOST_SLICES)
    numbers = [index * (view.depth - 1) // max(count - 1, 1) for index in range(count)]

    slices = cut_slices(view, numbers)
    lower, upper = shown_range(image, normalisation) or np.quantile(slices, (_CUT, 1 - _CUT))
    shares = np.clip((slices - lower) / max(upper - lower, 1e-6), 0.0, 1.0)
    scan = Image.fromarray(_sheet(np.rint(shares * 255).astype(np.uint8)))

    marks = SliceView(Volume(label, image.affine, image.source, image.oriented), view.grid)
    # nearest voxels
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(view.working_size, view.native_size, strict=True)
    )
    values = _sheet([marks.native(n, n + 1)[0][np.ix_(rows, columns)] for n in numbers])
    masks = Image.fromarray(_painted(values, structures))

    atomic_write(scan_path, lambda path: scan.save(path, "jpeg", quality=_QUALITY))
    atomic_write(mask_path, lambda path: masks.save(path, "png", compress_level=3))
    return view.depth


def _sheet(slices: Iterable[np.ndarray]) -> np.ndarray:
    """Slices (h, w) upright beside and below each other; what is left over is 0."""
    pictures = [display_plane(plane) for plane in slices]
    columns = min(SHEET_COLUMNS, len(pictures))
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = (pictures[i : i + columns] for i in range(0, len(pictures), columns))
    return np.vstack([np.hstack(row) for row in rows])


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
