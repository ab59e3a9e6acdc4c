"""Edge loss that stands in for the boundary prior of SSL-ALPNet's journal version."""

import torch
import torch.nn.functional as F
from torch import Tensor


def boundary_loss(margins: Tensor, label: Tensor) -> Tensor:
    """Return one minus the soft Dice of predicted and labelled edges per episode.

    A reconstruction: the journal version (Ouyang et al., TMI 2022) announces a boundary prior
    computed by a convolution with a fixed kernel, its code is not public. Here the kernel is the
    eight-neighbour Laplacian, and an edge is the size of its answer.

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, (B, N, H, W).

    Returns:
        The loss in [0, 1], averaged over structures, (B,).
    """
    predicted = _edges(torch.sigmoid(margins.float()))
    expected = _edges((label == 1).float())
    overlap = 2 * (predicted * expected).sum((2, 3))
    total = predicted.square().sum((2, 3)) + expected.square().sum((2, 3))
    return (1 - overlap / total.clamp_min(1e-6)).mean(1)


def _edges(probability: Tensor) -> Tensor:
    b, n, h, w = probability.shape
    kernel = torch.full((1, 1, 3, 3), -1.0 / 8, device=probability.device)
    kernel[0, 0, 1, 1] = 1.0
    padded = F.pad(probability.reshape(b * n, 1, h, w), [1, 1, 1, 1], mode="replicate")
    return F.conv2d(padded, kernel).abs().reshape(b, n, h, w)
