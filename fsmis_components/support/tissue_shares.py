"""How much air, fat, soft tissue and bone slices of CT show, and where."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import Normalisation, modality_of

# Hounsfield units, within the window that data sets of CT are clipped to
EDGES = (-110.0, -60.0, -20.0, 20.0, 60.0, 100.0, 150.0, 200.0, 250.0)
_SLICES = 16  # that are described at once, so that memory does not grow with the depth


def tissue_shares(view: SliceView, normalisation: Normalisation, cell: int) -> Tensor | None:
    """Share of each cell that is denser than each of nine values, float16 (D, 9, h, w).

    Only CT is measured in a unit, so that scans can be compared by it; None: MR. A cell is `cell`
    working pixels wide.
    """
    if normalisation.modality != "ct":
        return None
    offset = modality_of(view.volume).offset
    edges = torch.tensor(EDGES)[:, None, None] + offset
    result = []
    for start in range(0, view.depth, _SLICES):
        slices = view.slices(start, min(start + _SLICES, view.depth)).float()
        denser = (slices > edges).float()
        result.append(F.avg_pool2d(denser, cell, ceil_mode=True).half())
    return torch.cat(result)
