"""Figures of one predicted mask against its label: overlap, surface, extent, false positives.

Empty masks have defined figures (README.md has the table), so that no case is dropped and none is
NaN. The diagonal of the volume is the largest error that it allows; with it means over cases exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from monai.metrics import get_mask_edges, get_surface_distance
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

# The benchmark's tolerance: an outline that is one pixel off still counts in scans of 1 to 2 mm.
TOLERANCE_MM = 2.0
# With more surface points than this a search tree is slower than a distance transform: it takes
# ten seconds for noise. On 1.25 mm pixels a liver and its mask have 80 000, a kidney 15 000.
_TREE_POINTS = 100_000


def mask_figures(
    predicted: np.ndarray, labelled: np.ndarray, spacing: tuple[float, float, float]
) -> dict[str, float]:
    """All figures of a mask, also of an empty one, by the names of `records.FIGURES`.

    NSD is MONAI's with subvoxels (that of DeepMind's surface-distance): the share of both surfaces,
    by area, that lies within the tolerance of the other one. Voxels of 7.7 x 1.25 x 1.25 mm need
    the areas: counting voxels instead weighs a top face like a side face six times as large. HD95
    is MONAI's: distances between the centres of border voxels, 95th percentile of each direction,
    the larger of the two.

    Args:
        predicted: bool, (D, h, w).
        labelled: bool, the same shape.
        spacing: millimetres between slices, rows and columns.
    """
    steps = tuple(map(float, spacing))
    found, true, both = (
        int(np.count_nonzero(mask)) for mask in (predicted, labelled, predicted & labelled)
    )
    if found and true:
        # no surface point lies farther out, also where a mask touches the border of the volume
        box = ndimage.find_objects((predicted | labelled).view(np.uint8))[0]
        cropped = [np.pad(mask[box], 1) for mask in (predicted, labelled)]
        nsd, hd95 = _surface_figures(cropped, steps)
    elif found or true:
        nsd, hd95 = 0.0, math.hypot(*np.multiply(predicted.shape, steps))
    else:
        nsd, hd95 = 100.0, 0.0
    (a, b), (c, d) = _slice_range(predicted), _slice_range(labelled)
    return {
        "dice": dice_percent(predicted, labelled),
        "nsd": nsd,
        "hd95_mm": hd95,
        "precision": _percent(both, found, otherwise=0.0 if true else 100.0),
        "recall": _percent(both, true, otherwise=100.0),
        # slices in one of the two ranges from first to last slice, not in both
        "extent_error": float((b - a) + (d - c) - 2 * max(0, min(b, d) - max(a, c))),
        "false_positive_ml": (found - both) * (math.prod(steps) / 1000),
    }


def dice_percent(predicted: np.ndarray, labelled: np.ndarray) -> float:
    """Dice of two bool masks of one shape in percent; 100 where both are empty."""
    both = int(np.count_nonzero(predicted & labelled))
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(labelled))
    return _percent(2 * both, total, otherwise=100.0)


def _percent(part: int, whole: int, otherwise: float) -> float:
    return 100.0 * part / whole if whole else otherwise


def _slice_range(mask: np.ndarray) -> tuple[int, int]:
    """First slice of a mask and the one behind its last; two zeros for an empty mask."""
    held = np.flatnonzero(mask.any((1, 2)))
    return (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)


def _surface_figures(
    masks: Sequence[np.ndarray], spacing: tuple[float, ...]
) -> tuple[float, float]:
    """NSD in percent and HD95 in mm of two cropped masks, neither of them empty."""
    table, kernel = get_code_to_measure_table(spacing)
    corners = [_corner_codes(mask, kernel.flatten().tolist()) for mask in masks]
    edges = [(code != 0) & (code != 255) for code in corners]
    areas = np.concatenate(
        [table.numpy()[code[edge]] for code, edge in zip(corners, edges, strict=True)]
    ).astype(float)
    within = np.concatenate(_distances(edges, spacing)) <= TOLERANCE_MM
    nsd = 100.0 * float(areas[within].sum() / areas.sum())

    borders = get_mask_edges(*masks, crop=False)
    hd95 = max(float(np.percentile(d, 95)) for d in _distances(borders, spacing))
    return nsd, hd95


def _corner_codes(mask: np.ndarray, kernel: Sequence[int]) -> np.ndarray:
    """Code (D - 1, h - 1, w - 1) of the eight voxels around each corner of voxels (D, h, w).

    The codes of MONAI's `get_mask_edges`, which convolves for them and takes ten times as long.
    """
    cubes = np.lib.stride_tricks.sliding_window_view(mask, (2, 2, 2))
    codes = np.zeros(cubes.shape[:3], np.uint8)
    for corner, bit in zip(np.ndindex(2, 2, 2), kernel, strict=True):
        codes |= cubes[(..., *corner)] * np.uint8(bit)
    return codes


def _distances(surfaces: Sequence[np.ndarray], spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Distance in mm from each point of either surface to the nearest point of the other one.

    Both ways are exact, and both round to float32 as MONAI does: 2 mm equal a tolerance of 2 mm.
    """
    first, second = surfaces
    both_ways = ((first, second), (second, first))
    if np.count_nonzero(first) + np.count_nonzero(second) <= _TREE_POINTS:
        return [np.asarray(get_surface_distance(a, b, spacing=spacing)) for a, b in both_ways]
    return [
        ndimage.distance_transform_edt(~b, sampling=spacing)[a].astype(np.float32)
        for a, b in both_ways
    ]
