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
    parts = []
    for start in range(0, view.depth, slab):
        slices = normalise(view.slices(start, min(start + slab, view.depth)))
        inside = centre_fit(torch.ones_like(slices), size) > 0
        darkest = slices.amin((-2, -1), keepdim=True)
        parts.append(torch.where(inside, centre_fit(slices, size), darkest))
    return torch.cat(parts)


def merged_masks(view: SliceView, values: Sequence[int], masks: np.ndarray) -> np.ndarray:
    """A label map (X, Y, Z) in the storage order of the query; the last structure wins.

    Args:
        view: the query.
        values: label value of each structure.
        masks: bool (D, N, h, w), which may overlap.
    """
    label = np.zeros(masks[:, 0].shape, label_dtype(max(values)))
    for index, value in enumerate(values):
        label[masks[:, index]] = value
    return view.restack(label)


def label_map(view: SliceView, values: Sequence[int], winners: Sequence[Tensor]) -> np.ndarray:
    """A label map (X, Y, Z) in the storage order of the query.

    Args:
        view: the query.
        values: label value of each structure.
        winners: integers (n, h, w), batch after batch of slices; 0 is background, 1 + i structure
            i.
    """
    table = np.array([0, *values]).astype(label_dtype(max(values)))
    return view.restack(table[torch.cat(list(winners)).numpy()])
