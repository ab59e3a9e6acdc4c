"""3D clean-up: as many parts as the support has, and no holes where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects, label

_REAL_PART = 0.1  # share of a structure's volume below which a piece is no part of it
_REAL_HOLE = 0.05  # likewise of holes


@dataclass(frozen=True)
class Build:
    """How a structure is built.

    Attributes:
        parts: connected pieces.
        solid: whether its slices have no holes.
    """

    parts: int
    solid: bool


def build_of(shapes: np.ndarray) -> Build:
    """How the support's shape is built.

    Args:
        shapes: (Z, h, w) shares of cells in [0, 1].
    """
    # half a cell's worth, less for structures thinner than a cell
    filled = shapes >= min(0.5, 0.5 * float(shapes.max(initial=0)) + 1e-6)
    pieces, count = label(filled, np.ones((3, 3, 3)))
    if not count:
        return Build(1, False)
    sizes = np.bincount(pieces.ravel())[1:]
    without_holes = sum(int(binary_fill_holes(plane).sum()) for plane in filled)
    return Build(
        int((sizes >= _REAL_PART * sizes.sum()).sum()),
        without_holes <= (1 + _REAL_HOLE) * filled.sum(),
    )


def cleaned(labels: np.ndarray, values: Sequence[int], builds: Sequence[Build]) -> np.ndarray:
    """Keep each structure's largest parts and fill its holes.

    Args:
        labels: (D, h, w) label values; changed in place.
        values: label value of each structure.
        builds: how each is built.

    Returns:
        The labels.
    """
    for value, build in zip(values, builds, strict=True):
        mask = labels == value
        box = find_objects(mask.view(np.uint8))
        if not box or box[0] is None:
            continue
        # all work is done inside the bounding box: component numbers take four bytes a voxel
        part, inside = labels[box[0]], mask[box[0]]
        pieces, count = label(inside)
        if count > build.parts:
            # slice by slice: counting makes 64-bit copies
            sizes = np.zeros(count + 1, np.int64)
            for plane in pieces:
                sizes += np.bincount(plane.ravel(), minlength=count + 1)
            sizes[0] = 0
            kept = np.zeros(count + 1, bool)
            # a stable order: of equal pieces the first
            kept[np.argsort(-sizes, kind="stable")[: build.parts]] = True
            inside &= kept[pieces]
            part[(part == value) & ~inside] = 0
        if build.solid:
            for plane, own in zip(part, inside, strict=True):
                if own.any():
                    plane[binary_fill_holes(own) & (plane == 0)] = value
    return labels
