"""What scans show whatever the network: MIND descriptors, and the tissues of CT."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import Normalisation, fit_normaliser, modality_of

CHANNELS = 12
_LARGEST = 255
_SLICES = 16  # that are described at once, so that memory does not grow with the depth
_HALO = 2  # slices that a description reaches into
_CACHED = 2**16  # voxels of which sums are made at once, so that they stay in a core's cache
_LEAST_VARIANCE = 1e-4  # of normalised intensities: below it there is noise only
_SIX = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
# neighbours of a place that are neighbours of each other, not opposite
_PAIRS = [(one, other) for one, other in combinations(_SIX, 2) if np.add(one, other).any()]
# Hounsfield units, within the window that data sets of CT are clipped to
EDGES = (-110.0, -60.0, -20.0, 20.0, 60.0, 100.0, 150.0, 200.0, 250.0)


def self_similarity(view: SliceView, normalisation: Normalisation, cell: int) -> Tensor:
    """Describe a scan by how alike the neighbours of each place are, uint8 (D, 12, h, w).

    The descriptor compares patches of one scan only (MIND-SSC; Heinrich et al., MICCAI 2013), so
    two scans of unlike contrast can be compared by it. It is made at two pixels a cell; one vector
    a cell (`cell` working pixels wide), 255 for patches that are alike.
    """
    normalise = fit_normaliser(view.volume, normalisation)
    result = []
    for start in range(0, view.depth, _SLICES):
        stop = min(start + _SLICES, view.depth)
        first, last = max(start - _HALO, 0), min(stop + _HALO, view.depth)
        slices = normalise(view.slices(first, last)).float()
        image = F.avg_pool2d(slices, max(1, cell // 2), ceil_mode=True)[:, 0]
        channels = _descriptors(image)[:, start - first : stop - first]
        cells = F.avg_pool2d(channels, 2 if cell > 1 else 1, ceil_mode=True)
        result.append((cells * _LARGEST).round().to(torch.uint8).transpose(0, 1))
    return torch.cat(result)


def _descriptors(image: Tensor) -> Tensor:
    """Descriptors (12, D, H, W) in (0, 1] of an image (D, H, W)."""
    padded = F.pad(image[None, None], (1,) * 6, mode="replicate")[0, 0]
    depth, height, width = image.shape
    near = {
        (z, y, x): padded[1 + z :, 1 + y :, 1 + x :][:depth, :height, :width] for z, y, x in _SIX
    }
    distance = torch.cat(
        [patch_mean((near[first] - near[second]).square()[None]) for first, second in _PAIRS]
    )
    distance = distance - distance.amin(0)
    return (-distance / distance.mean(0).clamp_min(_LEAST_VARIANCE)).exp()


def patch_mean(maps: Tensor) -> Tensor:
    """Maps (C, D, H, W) averaged over 3 x 3 x 3 voxels; the border repeats."""
    padded = F.pad(maps[None], (1,) * 6, mode="replicate")
    if maps.requires_grad:
        return F.avg_pool3d(padded, 3, stride=1)[0]
    # the same sums in the same order, bit for bit, in a fraction of the time on a CPU; what is
    # made of them takes decisions (the best shift), which another rounding would turn
    total = torch.zeros_like(maps)
    depth, height, width = maps.shape[1:]
    together = max(1, _CACHED // (depth * height * width))
    for sums, around in zip(total.split(together), padded[0].split(together), strict=True):
        for z, y, x in product(range(3), repeat=3):
            sums += around[:, z : z + depth, y : y + height, x : x + width]
    return total.div_(27)


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
