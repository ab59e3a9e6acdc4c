"""3D clean-up: as many parts as the support has, and no holes where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes, label

_REAL_PART = 0.1  # share of a structure's volume below which a piece is no part of it
_REAL_HOLE = 0.05  # likewise of holes


class Topology(NamedTuple):
    """Of how many pieces a structure is, and whether they are solid."""

    parts: int  # connected pieces
    solid: bool  # whether its slices have no holes


def topology_of(shapes: np.ndarray) -> Topology:
    """The topology of the support's shape, shares (Z, h, w) of cells in [0, 1]."""
    # half a cell's worth, less for structures thinner than a cell
    filled = shapes >= min(0.5, 0.5 * float(shapes.max(initial=0)) + 1e-6)
    pieces, count = label(filled, np.ones((3, 3, 3)))
    if not count:
        return Topology(1, False)
    sizes = np.bincount(pieces.ravel())[1:]
    without_holes = sum(int(binary_fill_holes(plane).sum()) for plane in filled)
    return Topology(
        int((sizes >= _REAL_PART * sizes.sum()).sum()),
        without_holes <= (1 + _REAL_HOLE) * filled.sum(),
    )


def clean_up(
    labels: np.ndarray, values: Sequence[int], topologies: Sequence[Topology]
) -> np.ndarray:
    """Keep each structure's largest parts and fill its holes, as its topology says.

    Label values (D, h, w) are changed in place and returned.
    """
    for value, topology in zip(values, topologies, strict=True):
        mask = labels == value
        if not mask.any():
            continue
        # all work is done inside the bounding box: component numbers take four bytes a voxel
        box = _bounding_box(mask)
        part, inside = labels[box], mask[box]
        pieces, count = label(inside)
        if count > topology.parts:
            # slice by slice: counting makes 64-bit copies
            sizes = np.zeros(count + 1, np.int64)
            for plane in pieces:
                sizes += np.bincount(plane.ravel(), minlength=count + 1)
            sizes[0] = 0
            kept = np.zeros(count + 1, bool)
            # a stable order: of equal pieces the first
            kept[np.argsort(-sizes, kind="stable")[: topology.parts]] = True
            inside &= kept[pieces]
            part[(part == value) & ~inside] = 0
        if topology.solid:
            for plane, filled in zip(part, inside, strict=True):
                if filled.any():
                    plane[binary_fill_holes(filled) & (plane == 0)] = value
    return labels


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask (D, h, w) that is not empty, in a tenth of scipy's time."""
    in_plane = np.asarray(mask.any(0))
    sides = (np.asarray(mask.any((1, 2))), in_plane.any(1), in_plane.any(0))
    ends = [np.flatnonzero(side)[[0, -1]] for side in sides]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
