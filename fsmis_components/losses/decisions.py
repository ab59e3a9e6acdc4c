"""Losses of independent foreground-background decisions, one for each structure."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def margin_cross_entropy(margins: Tensor, label: Tensor, background_weight: float = 1.0) -> Tensor:
    """Return the class-weighted mean cross-entropy of the two classes [0, margin] per episode.

    Every structure is a two-class problem of its own; the mean over its pixels divides by the
    weights' sum, as PyTorch's class-weighted cross-entropy does. Averaged over structures, (B,).

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, 255 ignored, (B, N, H, W).
        background_weight: weight of pixels outside the structure, beside 1 inside.
    """
    margins = margins.float()
    inside = (label == 1).float()
    outside = (label == 0).float()
    weighted = inside * F.softplus(-margins)
    weighted = weighted + background_weight * outside * F.softplus(margins)
    weights = inside + background_weight * outside
    loss = weighted.sum((2, 3)) / weights.sum((2, 3)).clamp_min(1e-6)
    return loss.mean(1)


def soft_dice_loss(margins: Tensor, label: Tensor) -> Tensor:
    """Return one minus the soft Dice of each structure, averaged, per episode.

    With ``p = sigmoid(margins)`` and y = 1 inside the structure:
    ``1 - (2 * sum(p * y) + 1) / (sum(p) + sum(y) + 1)``: 0 where nothing is labelled and nothing
    predicted. The idea is that of V-Net (Milletari et al., 3DV 2016), whose denominator sums
    squares; here it sums the plain values, so that at certain decisions the loss is about one minus
    the Dice that is reported. Margins and label as of :func:`margin_cross_entropy`; (B,), float32
    for half inputs.
    """
    margins = to_compute_dtype(margins)
    inside = (label == 1).to(margins.dtype)
    known = inside + (label == 0).to(margins.dtype)
    predicted = torch.sigmoid(margins) * known
    overlap = (predicted * inside).sum((2, 3))
    total = predicted.sum((2, 3)) + inside.sum((2, 3))
    return (1 - (2 * overlap + 1.0) / (total + 1.0)).mean(1)


def self_prediction_loss(probability: Tensor, label: Tensor) -> Tensor:
    """Return the unweighted negative log-likelihood of the two-class map [1 - S, S].

    The map need not lie in [0, 1]: CoW's released code has no sigmoid in front of it. What leaves
    [2**-23, 1 - 2**-23] is clamped and gets no gradient. Label as of :func:`margin_cross_entropy`;
    the mean over pixels, (B, N), float32 for half inputs.
    """
    eps = 2.0**-23  # the spacing of float32 numbers at 1, so that 1 - eps is exact
    probability = to_compute_dtype(probability).clamp(eps, 1 - eps)
    inside, outside = label == 1, label == 0
    of_truth = torch.where(inside, probability, 1 - probability)
    known = (inside | outside).to(probability.dtype)
    return -(of_truth.log() * known).sum((2, 3)) / known.sum((2, 3)).clamp_min(1)
