"""Prototypes of ALPNet: local means in grid cells, and where these serve."""

from typing import List, Tuple

import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def grid_prototypes(
    features: Tensor, mask: Tensor, window: int, threshold: float
) -> Tuple[Tensor, Tensor]:
    """Return the mean feature of each grid cell, and which cells belong to each structure.

    Incomplete cells at the lower and right border are left out, as in ALPNet (Ouyang et al.,
    ECCV 2020, section 3.3). Cells are those of the features, so all structures share them.

    Args:
        features: (B, C, h, w).
        mask: weights in [0, 1], (B, N, h, w).
        window: side of a cell in feature positions, clipped to the features' size.
        threshold: share of a cell that the mask must exceed.

    Returns:
        Cells (B, P, C) in row order and their validity (B, N, P) bool, with
        P = (h // window) * (w // window).
    """
    side = _clipped(window, features)
    cells = F.avg_pool2d(features, side).flatten(2).transpose(1, 2)  # (B, P, C)
    filled = F.avg_pool2d(to_compute_dtype(mask), side).flatten(2)  # (B, N, P)
    return cells, filled > threshold


def fills_a_block(mask: Tensor, window: int, threshold: float) -> Tensor:
    """Return where a structure fills any block, (B, N) bool: there local prototypes serve.

    Args:
        mask: (B, N, h, w).
        window: side of a block in feature positions, clipped to the features' size.
        threshold: share of the block that the mask must reach.
    """
    filled = F.avg_pool2d(to_compute_dtype(mask), _clipped(window, mask))
    return filled.flatten(2).amax(2) >= threshold


def _clipped(window: int, maps: Tensor) -> List[int]:
    return [min(window, maps.shape[-2]), min(window, maps.shape[-1])]
