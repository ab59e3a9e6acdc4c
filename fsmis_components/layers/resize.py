"""Resizing between the image's grid and the features' grid."""

from typing import Tuple

import torch.nn.functional as F
from torch import Tensor


def resize_mask(mask: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return the masks (B, N, H, W) on another grid, bilinear with half-pixel centres.

    No antialiasing, as in ALPNet: a mask in {0, 1} becomes weights in [0, 1].
    """
    if not mask.is_floating_point():
        mask = mask.float()
    return _resize(mask, size)


def resize_logits(logits: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return the logits (B, N, h, w) on another grid, bilinear with half-pixel centres."""
    return _resize(logits, size)


def _resize(maps: Tensor, size: Tuple[int, int]) -> Tensor:
    if maps.shape[-2] == size[0] and maps.shape[-1] == size[1]:
        return maps
    return F.interpolate(maps, size=[size[0], size[1]], mode="bilinear", align_corners=False)
