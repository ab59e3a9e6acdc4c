"""The precision in which the operators compute, whatever the precision of their inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_compute_dtype(tensor: Tensor) -> Tensor:
    """Return the tensor in float64 if it is so, in float32 otherwise."""
    if tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.float32)


def unit_vectors(vectors: Tensor, dim: int = -1, eps: float = 1e-8) -> Tensor:
    """Return vectors along `dim` with unit length, float32; a zero vector stays zero."""
    return F.normalize(to_compute_dtype(vectors), dim=dim, eps=eps)


def shape_text(tensor: Tensor) -> str:
    """Return the shape as error messages print it, (2, 3, 17, 33)."""
    return "(" + ", ".join([str(length) for length in tensor.shape]) + ")"
