"""Masked average pooling: the mean of features under each mask."""

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def masked_average_pool(features: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the mean feature under each mask, (B, N, C) in the dtype of ``features``.

    ``sum(features * mask) / (sum(mask) + eps)``; sums are taken in float32 for half inputs. An
    empty mask gives zeros.

    Args:
        features: (B, C, *space), floating point.
        mask: weights in [0, 1], (B, N, *space).
        eps: added to the sum of the mask; 1e-5 in ALPNet (Ouyang et al., ECCV 2020).

    Example:
        >>> features = torch.tensor([[[1.0, 2.0, 6.0]]])  # (B, C, W) = (1, 1, 3)
        >>> masked_average_pool(features, torch.tensor([[[1.0, 1.0, 0.0]]]), eps=0.0)
        tensor([[[1.5000]]])
    """
    # autocast would take the product in half precision
    with torch.autocast(features.device.type, enabled=False):
        values = to_compute_dtype(features).flatten(2)  # (B, C, L)
        weights = mask.to(values.dtype).flatten(2)  # (B, N, L)
        total = torch.matmul(weights, values.transpose(1, 2))  # (B, N, C)
        return (total / (weights.sum(2, keepdim=True) + eps)).to(features.dtype)
