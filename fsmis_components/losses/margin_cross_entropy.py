"""Cross-entropy of independent foreground-background decisions given as margins."""

import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def margin_cross_entropy(
    margins: Tensor,
    label: Tensor,
    background_weight: float = 1.0,
    foreground_weight: float = 1.0,
) -> Tensor:
    """Return the class-weighted mean cross-entropy of the two classes [0, margin] per episode.

    Every structure is a two-class problem of its own: the softmax of ``[score_bg, score_fg]``
    depends on their difference only. The mean divides by the weights' sum, as PyTorch's
    class-weighted cross-entropy does. SSL-ALPNet uses weights 0.05 and 1 on the query.

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, 255 ignored, (B, N, H, W).
        background_weight: weight of pixels outside the structure.
        foreground_weight: weight of pixels inside the structure.

    Returns:
        The loss, averaged over structures, (B,).
    """
    margins = margins.float()
    inside = (label == 1).float()
    outside = (label == 0).float()
    weighted = foreground_weight * inside * F.softplus(-margins)
    weighted = weighted + background_weight * outside * F.softplus(margins)
    weights = foreground_weight * inside + background_weight * outside
    loss = weighted.sum((2, 3)) / weights.sum((2, 3)).clamp_min(1e-6)
    return loss.mean(1)
