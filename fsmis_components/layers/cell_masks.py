"""Masks on the cells of a feature map: shares of cells, and which cells stand for a class."""

import math
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.masked_average_pool import masked_average_pool


def cell_shares(masks: Tensor, size: Tuple[int, int], stride: int) -> Tensor:
    """Return the share of each cell that masks fill, float32 (B, N, h, w).

    Args:
        masks: (B, N, H, W) in [0, 1]; what lies below and at the right of them is padding.
        size: h and w of the feature map.
        stride: side of a cell in pixels.
    """
    bottom, right = size[0] * stride - masks.shape[-2], size[1] * stride - masks.shape[-1]
    return F.avg_pool2d(F.pad(masks.to(torch.float32), [0, right, 0, bottom]), stride)


def cells_inside(
    image_size: Tuple[int, int], size: Tuple[int, int], stride: int, device: torch.device
) -> Tensor:
    """Return which cells hold a pixel of the image, and not padding alone, bool (1, h, w)."""
    rows = torch.arange(size[0], device=device) * stride < image_size[0]
    columns = torch.arange(size[1], device=device) * stride < image_size[1]
    return (rows[:, None] & columns).unsqueeze(0)


def chosen_cells(shares: Tensor) -> Tensor:
    """Return the cells (..., h, w) more than half filled; where there are none, all touched."""
    half = shares > 0.5
    none = torch.logical_not(half.flatten(-2).any(-1))[..., None, None]
    return half | (none & (shares > 0))


def class_means(features: Tensor, foreground: Tensor, inside: Tensor) -> Tensor:
    """Return the mean prototypes of background and foreground, (B, N, 2, C).

    Args:
        features: (B, C, h, w).
        foreground: shares of cells, (B, N, h, w).
        inside: shares of cells that the image fills, (1, 1, h, w).
    """
    front = masked_average_pool(features, foreground)
    return torch.stack([masked_average_pool(features, inside - foreground), front], 2)


def confident_cells(probability: Tensor, inside: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the cells that are surely foreground, and surely background, bool (B, Q, h, w) each.

    Where no cell exceeds a threshold, the most probable cells. SSP then takes the best 12; small
    organs have fewer, so it is a share of all cells here. The choice is hard: no gradient.

    Args:
        probability: of foreground, (B, Q, h, w).
        inside: which cells belong to the image and not to its padding, bool (1, h, w).
    """
    probability = probability.detach().float()
    # the thresholds of SSP (Fan et al., ECCV 2022)
    return _above(probability, 0.7, inside), _above(1 - probability, 0.6, inside)


def _above(probability: Tensor, threshold: float, inside: Tensor) -> Tensor:
    known = torch.where(inside, probability, -1.0).flatten(-2)  # (B, Q, h * w)
    count = min(max(4, math.ceil(0.002 * known.shape[-1])), known.shape[-1])
    least = known.topk(count, dim=-1).values[..., -1:].clamp_min(0)
    sure = known > threshold
    # as torch.where(some, sure, known >= least), which onnxruntime has not for bools
    some = sure.any(-1, keepdim=True)
    sure = sure | (torch.logical_not(some) & (known >= least))
    return sure.reshape(probability.shape)
