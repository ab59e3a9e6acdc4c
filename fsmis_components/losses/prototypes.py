"""Losses of prototypes: support and query agree on each class, the two classes differ."""

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def auxiliary_loss(
    support_foreground: Tensor,
    support_background: Tensor,
    query_foreground: Tensor,
    query_background: Tensor,
) -> Tensor:
    """Return how far the mean directions of four sets (B, N, P, C) are from where they should be.

    With d1, d2 the unit vectors along the mean prototypes of the support's and of the query's
    foreground, and b1, b2 those of the background (CoW, IJCAI 2025, released code):
    ``(2 - d1.d2 - b1.b2) + max(0, d1.b1) + max(0, d2.b2)``. In float32 for half inputs.

    P may differ between the sets. The loss is in [0, 6], (B, N). A set whose mean is zero has no
    direction: its products are 0, and so is its gradient.
    """
    d1, b1 = _direction(support_foreground), _direction(support_background)
    d2, b2 = _direction(query_foreground), _direction(query_background)
    agreement = 2 - _dot(d1, d2) - _dot(b1, b2)
    return agreement + _dot(d1, b1).clamp_min(0) + _dot(d2, b2).clamp_min(0)


def prototype_loss(tokens: Tensor) -> Tensor:
    """Return the auxiliary loss of CoW, averaged over Q pairs, (B,), as IPSNet's loss.

    Reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025): its aim, consistency
    within a class and less similarity between classes, said as a loss.

    Args:
        tokens: (B, Q, 2, 2, C): class (background, foreground), then side (support, query).
    """
    sets = tokens.unsqueeze(4)  # (B, Q, class, side, 1 prototype, C)
    loss = auxiliary_loss(sets[:, :, 1, 0], sets[:, :, 0, 0], sets[:, :, 1, 1], sets[:, :, 0, 1])
    return loss.mean(1)


def _direction(prototypes: Tensor) -> Tensor:
    eps = 1e-6
    mean = to_compute_dtype(prototypes).mean(2)  # (B, N, C)
    length = mean.square().sum(-1, keepdim=True).clamp_min(eps * eps).sqrt()
    # divided by a tiny length a gradient would be huge
    return torch.where(length > eps, mean / length, torch.zeros_like(mean))


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(-1)
