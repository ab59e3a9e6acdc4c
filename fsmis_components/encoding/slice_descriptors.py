"""What a slice looks like as a whole, so that slices of two scans can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.geometry import centre_fit

CELLS = 8


def slice_descriptors(features: Tensor, field: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Describe slices by their top features (D, C, h, w), averaged over a coarse grid.

    Each position's feature is brought to unit length first, because prototypes compare directions;
    a grid keeps where in the slice something lies. It covers a field about the centre, as a share
    of the height and of the width, so that slices of another size can be compared; what lies
    outside a slice is zero. Returns float32 (D, C * 8 * 8), not of unit length.
    """
    unit = F.normalize(features.float(), dim=1)
    sides = zip(field, unit.shape[-2:], strict=True)
    return coarse_descriptors(unit, [max(1, round(share * side)) for share, side in sides])


def coarse_descriptors(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (D, C, h, w) about their centre, on `size`, averaged over the grid: (D, C * 8 * 8)."""
    if tuple(size) != tuple(maps.shape[-2:]):
        maps = centre_fit(maps, size)
    return F.adaptive_avg_pool2d(maps.float(), CELLS).flatten(1)


def comparable(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors (D, F) and (Z, F) of two scans so that their products are cosines, float32.

    What all slices of a scan share says nothing about the place along z and differs between
    scanners, so each scan's mean is taken off first; a query of one slice, which has no mean of its
    own, takes the support's.
    """
    query, support = query.float(), support.float()
    means = [(query if len(query) > 1 else support).mean(0), support.mean(0)]
    left, right = (
        F.normalize(each - mean, dim=1) for each, mean in zip((query, support), means, strict=True)
    )
    return left, right


def layout_similarity(query: Tensor, support: Tensor) -> float:
    """Cosine of the mean slices of two scans: whether the same lies in the same place.

    Of each channel its mean over the slice is taken off, which says what a scan shows, not where.
    """
    left, right = (
        F.normalize((cells - cells.mean(1, keepdim=True)).flatten(), dim=0)
        for cells in (each.mean(0).unflatten(0, (-1, CELLS * CELLS)) for each in (query, support))
    )
    return float(left @ right)
