"""Vectors divided by their lengths, and the derivative of that, for code without autograd."""

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def to_unit(vectors: Tensor, dim: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``x / max(|x|, eps)`` as F.normalize does, in the precision of the sums.

    Args:
        vectors: any shape, vectors along dim.
        dim: the axis of the vectors.
        eps: smallest length to divide by.

    Returns:
        the unit vectors, and what they were divided by with a length of 1 along dim; float64 for
        float64 vectors, float32 otherwise.
    """
    vectors = to_compute_dtype(vectors)
    if vectors.device.type == "cpu" and vectors.stride(dim) != 1:
        # three times as fast there as vector_norm along an axis that is not contiguous
        length = vectors.square().sum(dim, keepdim=True).sqrt_()
    else:
        length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    length.clamp_min_(eps)
    return vectors / length, length


def to_unit_backward(
    grad_unit: Tensor, unit: Tensor, length: Tensor, dim: int, eps: float
) -> Tensor:
    """Return the gradient of the vectors of :func:`to_unit`, written over grad_unit.

    With ``u = x / |x|`` it is ``(g - u <u, g>) / |x|``; where |x| < eps the divisor is a constant.
    """
    along = (unit * grad_unit).sum(dim, keepdim=True)
    along = torch.where(length > eps, along, 0.0)
    return grad_unit.addcmul_(unit, along, value=-1.0).div_(length)
