"""Prototypes that any query slice may use: those that none may use need no products."""

from typing import Optional, Sequence

import torch
from torch import Tensor

# dropping few prototypes costs more than it saves
_WORTHWHILE = 0.8


def used_numbers(valid: Optional[Tensor], one_support: bool) -> Optional[Tensor]:
    """Return which prototypes to keep; most cells lie outside a structure.

    Only on a CPU: elsewhere the number that remains would have to be waited for.

    Args:
        valid: (B or 1, N, P) bool.
        one_support: whether all query slices share the prototypes.

    Returns:
        numbers (B or 1, N, K) of prototypes, K as many as the fullest structure needs: the others
        are filled up with invalid ones. None: keep all.
    """
    if valid is None or valid.device.type != "cpu":
        return None
    kept = valid.any(0, keepdim=True) if one_support else valid
    most = max(1, int(kept.sum(2).max())) if kept.numel() else 1
    if most > _WORTHWHILE * valid.shape[2]:
        return None
    # the sort is stable: prototypes keep their order, and ties of max their winner
    return kept.to(torch.uint8).argsort(dim=2, descending=True, stable=True)[..., :most]


def take(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Return the vectors (B or 1, N, K, C) of (B or 1, N, P, C) at numbers (B or 1, N, K)."""
    batch = max(tensor.shape[0], numbers.shape[0])
    index = numbers.unsqueeze(-1).expand(batch, -1, -1, tensor.shape[3])
    return tensor.expand(batch, -1, -1, -1).gather(2, index)


def put_back(grad: Tensor, numbers: Optional[Tensor], shape: Sequence[int]) -> Tensor:
    """Return the gradient of the tensor that :func:`take` was given.

    Args:
        grad: gradient of what was taken, (B or 1, N, K, C).
        numbers: what was taken, (B or 1, N, K); None: all.
        shape: (B or 1, N or 1, P, C) of the tensor; axes of length 1 were shared and are summed.
    """
    if numbers is not None:
        index = numbers.unsqueeze(-1).expand_as(grad)
        every = grad.new_zeros(grad.shape[0], grad.shape[1], shape[2], shape[3])
        grad = every.scatter_(2, index, grad)
    return grad.sum_to_size(shape)
