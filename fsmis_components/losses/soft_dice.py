"""Soft Dice loss of independent foreground-background decisions given as margins."""

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def soft_dice_loss(margins: Tensor, label: Tensor, smoothing: float = 1.0) -> Tensor:
    """Return one minus the soft Dice of each structure, averaged, per episode.

    With ``p = sigmoid(margins)`` and y = 1 inside the structure:
    ``1 - (2 * sum(p * y) + smoothing) / (sum(p) + sum(y) + smoothing)``. The idea is that of
    V-Net (Milletari et al., 3DV 2016), whose denominator sums squares; here it sums the plain
    values, so that at certain decisions the loss is one minus the Dice that is reported. In
    float32 for half inputs.

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, 255 ignored, (B, N, H, W).
        smoothing: in pixels; the loss is 0 where nothing is labelled and nothing predicted, and
            falls there as the prediction shrinks to less than this.

    Returns:
        The loss in [0, 1], averaged over structures, (B,); 0 where all is ignored.
    """
    margins = to_compute_dtype(margins)
    inside = (label == 1).to(margins.dtype)
    known = inside + (label == 0).to(margins.dtype)
    predicted = torch.sigmoid(margins) * known
    overlap = (predicted * inside).sum((2, 3))
    total = predicted.sum((2, 3)) + inside.sum((2, 3))
    return (1 - (2 * overlap + smoothing) / (total + smoothing)).mean(1)
