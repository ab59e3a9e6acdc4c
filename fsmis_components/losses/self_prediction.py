"""Self-prediction loss of CoW: the support, segmented by its own prototype, against its mask."""

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype

# the spacing of float32 numbers at 1, so that 1 - EPS is exact
EPS = 2.0**-23


def self_prediction_loss(probability: Tensor, label: Tensor, eps: float = EPS) -> Tensor:
    """Return the unweighted negative log-likelihood of the two-class map [1 - S, S].

    The map need not lie in [0, 1]: CoW's released code has no sigmoid in front of it. What leaves
    [eps, 1 - eps] is clamped and gets no gradient. In float32 for half inputs.

    Args:
        probability: S, (B, N, H, W).
        label: 1 inside the structure, 0 outside, 255 ignored, (B, N, H, W).
        eps: distance that is kept from 0 and 1.

    Returns:
        The mean over pixels, (B, N); 0 where all are ignored.
    """
    probability = to_compute_dtype(probability).clamp(eps, 1 - eps)
    inside, outside = label == 1, label == 0
    of_truth = torch.where(inside, probability, 1 - probability)
    known = (inside | outside).to(probability.dtype)
    return -(of_truth.log() * known).sum((2, 3)) / known.sum((2, 3)).clamp_min(1)
