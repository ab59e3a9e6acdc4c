"""Prototype similarity in tiles, so that memory does not grow with the number of prototypes.

Two forms, those that the networks need: one set of prototypes that all structures share, of which
each counts its own (ALPNet), so that one product serves all; and a single prototype for each
structure, whose softmax-weighted sum is its scaled cosine.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype

# exponentials are taken of scores in [-scale, scale]: no maximum is needed while the sum of the
# largest and the smallest of them, here exp(40) and exp(-40), are normal in float32
_LARGEST_SCALE = 40.0
# positions and prototypes whose scores are held at once: on a CPU about a core's second-level
# cache, elsewhere enough to fill it
_SIDE_CPU = 512
_SIDE_DEVICE = 4096


def unsupported_reasons(prototypes: Tensor, valid: Tensor | None, scale: float) -> list[str]:
    """Return why this backend cannot run; empty: it can."""
    if _is_single(prototypes, valid):
        return []
    reasons = []
    if prototypes.shape[1] > 1:
        reasons.append("each structure has several prototypes of its own")
    if scale > _LARGEST_SCALE:
        reasons.append(f"scale {scale:g} is above {_LARGEST_SCALE:g}")
    return reasons


def forward(
    query: Tensor, prototypes: Tensor, valid: Tensor | None, scale: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Reduce scores over prototypes; the products do not grow with N.

    Args:
        query: (B, C, L).
        prototypes: (B or 1, 1, P, C), or (B or 1, N, 1, C) without valid.
        valid: (B or 1, N, P) bool.
        scale: factor of the cosine, at most _LARGEST_SCALE.
        eps: smallest norm to divide by.

    Returns:
        the weighted scores and the logarithm of the sum of exponentials, both (B, N, L).
    """
    query, _ = _to_unit(query, 1, eps)
    if _is_single(prototypes, valid):
        unit, _ = _to_unit(prototypes[:, :, 0].to(query.dtype), 2, eps)
        every = unit.expand(query.shape[0], -1, -1)
        scores = torch.baddbmm(query.new_zeros(1), every, query, beta=0, alpha=scale)
        return scores, scores
    prototypes, _ = _to_unit(prototypes[:, 0].to(query.dtype), 2, eps)
    valid = _all_of(prototypes) if valid is None else valid
    batch, _, length = query.shape
    total = query.new_zeros(batch, valid.shape[1], length)
    weighted = torch.zeros_like(total)
    for index, chosen, counts, unit in _slices(query, prototypes, valid):
        unit = unit * scale
        for part, positions in _tiles(len(chosen), length, query.device):
            scores = torch.mm(unit[part], query[index, :, positions])  # (p, l)
            weights = scores.exp()
            total[index, :, positions] += torch.mm(counts[:, part], weights)
            weighted[index, :, positions] += torch.mm(counts[:, part], weights.mul_(scores))
    some = valid.any(2, keepdim=True)
    # without a valid prototype the sum is 0; any finite logarithm will do
    kept = torch.where(some, total, 1.0).log_()
    return torch.where(some, weighted / total, 0.0), kept


def backward(
    grad: Tensor,
    query: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    reduced: Tensor,
    kept: Tensor,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return gradients of query and prototypes; the scores are made again."""
    query, query_length = _to_unit(query, 1, eps)
    if _is_single(prototypes, valid):
        unit, length = _to_unit(prototypes[:, :, 0].to(query.dtype), 2, eps)
        slope = (reduced + (1.0 - reduced)) * grad  # as below, of the one weight 1
        every = unit.expand(query.shape[0], -1, -1).transpose(1, 2)
        grad_query = torch.zeros_like(query).baddbmm_(every, slope, alpha=scale)
        grad_unit = torch.bmm(slope, query.transpose(1, 2)).mul_(scale).sum_to_size(unit.shape)
        return (
            _to_unit_backward(grad_query, query, query_length, 1, eps),
            _to_unit_backward(grad_unit, unit, length, 2, eps).unsqueeze(2),
        )
    prototypes, prototypes_length = _to_unit(prototypes[:, 0].to(query.dtype), 2, eps)
    valid = _all_of(prototypes) if valid is None else valid
    grad_query, grad_prototypes = torch.zeros_like(query), torch.zeros_like(prototypes)
    some = valid.any(2, keepdim=True)
    share = torch.where(some, grad * kept.neg().exp_(), 0.0)  # (B, N, L)
    offset = share * reduced
    for index, chosen, counts, unit in _slices(query, prototypes, valid):
        support = 0 if len(prototypes) == 1 else index
        for part, positions in _tiles(len(chosen), query.shape[2], query.device):
            place = query[index, :, positions]
            scores = torch.mm(unit[part], place).mul_(scale)
            weights = scores.exp()
            # d (sum_k w_k s_k) / d s_j = w_j (1 + s_j - sum_k w_k s_k), summed over N
            slope = torch.mm(counts[:, part].T, share[index, :, positions])
            slope.mul_(scores.add_(1.0))
            slope -= torch.mm(counts[:, part].T, offset[index, :, positions])
            slope.mul_(weights).mul_(scale)
            grad_query[index, :, positions] += torch.mm(unit[part].T, slope)
            grad_prototypes[support].index_add_(0, chosen[part], torch.mm(slope, place.T))
    return (
        _to_unit_backward(grad_query, query, query_length, 1, eps),
        _to_unit_backward(grad_prototypes, prototypes, prototypes_length, 2, eps).unsqueeze(1),
    )


def _is_single(prototypes: Tensor, valid: Tensor | None) -> bool:
    return valid is None and prototypes.shape[2] == 1


def _all_of(prototypes: Tensor) -> Tensor:
    return torch.ones((1, 1, prototypes.shape[1]), dtype=torch.bool, device=prototypes.device)


def _slices(
    query: Tensor, prototypes: Tensor, valid: Tensor
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield per query slice: its number, prototypes that count (P'), (N, P') of 0 and 1, (P', C).

    Elsewhere than on a CPU all prototypes count: the number that do would have to be waited for.
    """
    everything = torch.arange(prototypes.shape[1], device=query.device)
    for index in range(len(query)):
        allowed = valid[0 if len(valid) == 1 else index]
        unit = prototypes[0 if len(prototypes) == 1 else index]
        chosen = everything
        if query.device.type == "cpu":
            chosen = torch.nonzero(allowed.any(0)).flatten()
            allowed, unit = allowed[:, chosen], unit[chosen]
        yield index, chosen, allowed.to(query.dtype), unit


def _tiles(count: int, length: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the prototypes and of the positions."""
    side = _SIDE_CPU if device.type == "cpu" else _SIDE_DEVICE
    for start in range(0, length, side):
        for first in range(0, count, side):
            yield slice(first, min(count, first + side)), slice(start, min(length, start + side))


def _to_unit(vectors: Tensor, dim: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``x / max(|x|, eps)`` along dim, and the divisor, in the precision of the sums."""
    vectors = to_compute_dtype(vectors)
    if vectors.device.type == "cpu" and vectors.stride(dim) != 1:
        # three times as fast there as vector_norm along an axis that is not contiguous
        length = vectors.square().sum(dim, keepdim=True).sqrt_()
    else:
        length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    length.clamp_min_(eps)
    return vectors / length, length


def _to_unit_backward(
    grad_unit: Tensor, unit: Tensor, length: Tensor, dim: int, eps: float
) -> Tensor:
    """Return the gradient of the vectors of :func:`_to_unit`, written over grad_unit.

    With ``u = x / |x|`` it is ``(g - u <u, g>) / |x|``; where |x| < eps the divisor is a constant.
    """
    along = (unit * grad_unit).sum(dim, keepdim=True)
    along = torch.where(length > eps, along, 0.0)
    return grad_unit.addcmul_(unit, along, value=-1.0).div_(length)
