"""The definition of prototype similarity, in plain PyTorch."""

from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.similarity.problem import SimilarityProblem


def unsupported_reasons(problem: SimilarityProblem) -> List[str]:
    """Return why this backend cannot run: it always can."""
    return []


def run(problem: SimilarityProblem) -> Tensor:
    """Solve the problem; memory grows with N times P times the positions."""
    return similarity_by_definition(
        problem.query,
        problem.prototypes,
        problem.valid,
        problem.values,
        problem.reduction,
        problem.scale,
        problem.eps,
    )


def similarity_by_definition(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduction: str,
    scale: float,
    eps: float,
) -> Tensor:
    """Return what :func:`prototype_similarity` promises; also compiles as TorchScript.

    Returns:
        float64 for a float64 query, float32 otherwise.
    """
    if valid is not None:
        # one set of prototypes may serve all structures
        prototypes = prototypes.expand(-1, valid.shape[1], -1, -1)
    n, p = prototypes.shape[1], prototypes.shape[2]
    space = query.shape[2:]
    query_unit = F.normalize(to_compute_dtype(query), dim=1, eps=eps).flatten(2)  # (B, C, L)
    prototypes_unit = F.normalize(prototypes.to(query_unit.dtype), dim=3, eps=eps).flatten(1, 2)
    scores = scale * torch.matmul(prototypes_unit, query_unit)  # (B, N * P, L)
    scores = scores.unflatten(1, [n, p])  # (B, N, P, L)

    allowed = torch.ones([1, n, p, 1], dtype=torch.bool, device=query.device)
    if valid is not None:
        allowed = valid.unsqueeze(-1)
    scores = torch.where(allowed, scores, 0.0)
    if reduction == "none":
        return scores.unflatten(3, space)

    # a finite stand-in for minus infinity: without a valid prototype no NaN arises, also backward
    logits = torch.where(allowed, scores, -1e30)
    some = allowed.any(2)  # (B or 1, N, 1)
    if values is not None:
        if reduction == "max":
            weights = F.one_hot(logits.argmax(2), p).transpose(2, 3).to(scores.dtype)
        else:
            weights = logits.softmax(2)
        weights = weights * allowed
        picked = torch.matmul(values.to(scores.dtype).transpose(2, 3), weights)  # (B, N, V, L)
        return picked.unflatten(3, space)
    if reduction == "softmax":
        reduced = (logits.softmax(2) * allowed * scores).sum(2)
    elif reduction == "max":
        reduced = torch.where(some, logits.max(2)[0], -scale)
    else:
        reduced = torch.where(some, logits.logsumexp(2), -scale)
    return reduced.unflatten(2, space)  # (B, N, *space)
