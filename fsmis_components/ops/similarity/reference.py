"""The definition of prototype similarity, in plain PyTorch."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


def similarity_by_definition(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    scale: float,
    eps: float,
) -> Tensor:
    """Return what :func:`prototype_similarity` promises.

    Memory grows with N times P times the positions.

    Returns:
        float64 for a float64 query, float32 otherwise.
    """
    if valid is not None:
        # one set of prototypes may serve all structures
        prototypes = prototypes.expand(-1, valid.shape[1], -1, -1)
    n, p = prototypes.shape[1], prototypes.shape[2]
    query_unit = F.normalize(to_compute_dtype(query), dim=1, eps=eps).flatten(2)  # (B, C, L)
    prototypes_unit = F.normalize(prototypes.to(query_unit.dtype), dim=3, eps=eps).flatten(1, 2)
    scores = scale * torch.matmul(prototypes_unit, query_unit)  # (B, N * P, L)
    scores = scores.unflatten(1, [n, p])  # (B, N, P, L)

    allowed = torch.ones([1, n, p, 1], dtype=torch.bool, device=query.device)
    if valid is not None:
        allowed = valid.unsqueeze(-1)
    scores = torch.where(allowed, scores, 0.0)
    # a finite stand-in for minus infinity: without a valid prototype no NaN arises, also backward
    logits = torch.where(allowed, scores, -1e30)
    reduced = (logits.softmax(2) * allowed * scores).sum(2)
    return reduced.unflatten(2, query.shape[2:])  # (B, N, *space)
