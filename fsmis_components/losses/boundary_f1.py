"""Boundary loss of CoW: predicted and labelled boundaries meet, or are at most two pixels apart."""

from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype

# sides of the pools that find a boundary and that widen it (CoW, theta0 and theta)
BOUNDARY, TOLERANCE = 3, 5


def boundary_f1_loss(margins: Tensor, label: Tensor) -> Tensor:
    """Return one minus the boundary F1 score per episode.

    Bokhovkin and Burnaev, "Boundary Loss for Remote Sensing Imagery Semantic Segmentation" (ISNN
    2019), on the two-class map [sigmoid(-margin), sigmoid(margin)]. The boundary of a map P is
    ``b(P) = maxpool(1 - P) - (1 - P)``: the inner rim of a class, one pixel wide. A boundary
    pixel counts as met where the other boundary, widened by a second max-pool, covers it.
    Precision and recall are taken for each class; where neither map has a boundary they are 0.

    In float32 for half inputs, as the rim is a small difference of large numbers.

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, (B, N, H, W).

    Returns:
        The loss in [0, 1], averaged over the two classes and over structures, (B,).
    """
    margins = to_compute_dtype(margins)
    inside = (label == 1).to(margins.dtype)
    # 1 - P of the classes [background, foreground]
    predicted = _boundary([torch.sigmoid(margins), torch.sigmoid(-margins)], BOUNDARY)
    expected = _boundary([inside, 1 - inside], BOUNDARY)
    precision = _covered(predicted, _widened(expected, TOLERANCE))
    recall = _covered(expected, _widened(predicted, TOLERANCE))
    score = 2 * precision * recall / (precision + recall + 1e-7)
    return (1 - score).reshape(margins.shape[0], -1).mean(1)


def _boundary(complements: List[Tensor], width: int) -> Tensor:
    """Return the rims of both classes, (1, B * 2 * N, H, W)."""
    joined = torch.cat(complements, 1)
    # pooling runs over channels that lie side by side four times as fast as over single planes
    planes = joined.flatten(0, 1).unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return _widened(planes, width) - planes


def _widened(planes: Tensor, width: int) -> Tensor:
    return F.max_pool2d(planes, width, 1, width // 2)


def _covered(boundary: Tensor, cover: Tensor) -> Tensor:
    """Return the share of each boundary that lies under the cover, (1, B * 2 * N)."""
    return (boundary * cover).sum((2, 3)) / (boundary.sum((2, 3)) + 1e-7)
