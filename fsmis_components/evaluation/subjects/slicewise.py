"""Slices of a scan as a network that sees one slice at a time wants them, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.geometry import SliceView, centre_fit
from fsmis_components.inferers.segmentation import label_dtype


def scan_slices(
    view: SliceView, normalise: Callable[[Tensor], Tensor], size: Sequence[int], slab: int = 16
) -> Tensor:
    """All slices of a scan at the working resolution, normalised, on a canvas.

    Args:
        view: the scan.
        normalise: maps intensities of any shape.
        size: height and width of the canvas; slices are centred on it, see `centre_fit`.
        slab: slices that are in memory at the native resolution at once.

    Returns:
        float32 (D, 1, *size); around a slice lies its own darkest value.
    """
    starts = range(0, view.depth, slab)
    parts = (view.slices(start, min(start + slab, view.depth)) for start in starts)
    return torch.cat([on_canvas(normalise(part), size) for part in parts])


def on_canvas(slices: Tensor, size: Sequence[int]) -> Tensor:
    """Slices (n, 1, H, W) centred on (n, 1, *size), each surrounded by its own darkest value."""
    inside = centre_fit(torch.ones_like(slices), size) > 0
    return torch.where(inside, centre_fit(slices, size), slices.amin((-2, -1), keepdim=True))


def merged_masks(view: SliceView, values: Sequence[int], masks: np.ndarray) -> np.ndarray:
    """A label map of masks that may overlap: the last structure wins.

    Args:
        view: the query.
        values: label value of each structure.
        masks: bool (D, N, h, w).

    Returns:
        (X, Y, Z) in the storage order of the query.
    """
    label = np.zeros(masks[:, 0].shape, label_dtype(max(values)))
    for index, value in enumerate(values):
        label[masks[:, index]] = value
    return view.restack(label)


def label_map(view: SliceView, values: Sequence[int], winners: Sequence[Tensor]) -> np.ndarray:
    """A label map from the winning channel of each pixel.

    Args:
        view: the query.
        values: label value of each structure.
        winners: integers (n, h, w), batch after batch of slices; 0 is background, 1 + i structure
            i.

    Returns:
        (X, Y, Z) in the storage order of the query.
    """
    table = np.array([0, *values])
    table = table.astype(label_dtype(int(table.max())))
    return view.restack(table[torch.cat(list(winners)).numpy()])
