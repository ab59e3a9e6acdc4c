"""Resizing between the image's grid and the features' grid."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_mask(mask: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return the masks (B, N, H, W) on another grid, bilinear with half-pixel centres.

    No antialiasing, as in ALPNet: a mask in {0, 1} becomes weights in [0, 1].
    """
    if not mask.is_floating_point():
        mask = mask.float()
    return resize_logits(mask, size)


def resize_logits(logits: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return the logits (B, N, h, w) on another grid, bilinear with half-pixel centres."""
    if logits.shape[-2] == size[0] and logits.shape[-1] == size[1]:
        return logits
    return F.interpolate(logits, size=[size[0], size[1]], mode="bilinear", align_corners=False)


def pooling_weights(mask: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return weights (B, N, h, w) of features that stand for masks (B, N, H, W) of larger ones.

    ``sum(mask * upsampled) == sum(weights * features)`` for the upsampling of
    :func:`upsample_corners`, so a mean at the image's size needs no features of that size.
    """
    rows = _interpolation(size[0], mask.shape[-2], mask)  # (h, H)
    columns = _interpolation(size[1], mask.shape[-1], mask)  # (w, W)
    return torch.matmul(torch.matmul(rows, mask), columns.transpose(0, 1))


def upsample_corners(maps: Tensor, size: Tuple[int, int]) -> Tensor:
    """Return the maps (B, N, h, w) on another grid, bilinear with aligned corner pixels (CoW)."""
    if maps.shape[-2] == size[0] and maps.shape[-1] == size[1]:
        return maps
    return F.interpolate(maps, size=[size[0], size[1]], mode="bilinear", align_corners=True)


def _interpolation(short: int, long: int, like: Tensor) -> Tensor:
    """Return the share (short, long) that each of the few positions has in each of the many."""
    identity = torch.eye(short, device=like.device, dtype=like.dtype).unsqueeze(0)
    return F.interpolate(identity, size=[long], mode="linear", align_corners=True)[0]
