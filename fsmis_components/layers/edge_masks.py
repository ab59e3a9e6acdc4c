"""The rims just inside and just outside a structure."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_masks(mask: Tensor, iterations: int = 2) -> Tuple[Tensor, Tensor]:
    """Return the inner and the outer edge of masks (B, N, H, W) in [0, 1].

    The mask minus itself eroded, and itself dilated minus the mask, by a 3x3 square so many times
    (GMRD, TMI 2024, and CoW, IJCAI 2025: twice). The image's border is no edge.
    """
    # so many squares of 3, one after the other, are one of this radius
    return mask + _dilate(-mask, iterations), _dilate(mask, iterations) - mask


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Return the maximum over a square, rows and columns apart: cheaper than a max-pool on CPU."""
    h, w = mask.shape[-2], mask.shape[-1]
    # repeating the last row and column adds no new value to a square that reaches over the border
    padded = F.pad(mask, [radius, radius, radius, radius], mode="replicate")
    rows = padded.narrow(-2, 0, h)
    for i in range(1, 2 * radius + 1):
        rows = torch.maximum(rows, padded.narrow(-2, i, h))
    dilated = rows.narrow(-1, 0, w)
    for i in range(1, 2 * radius + 1):
        dilated = torch.maximum(dilated, rows.narrow(-1, i, w))
    return dilated
