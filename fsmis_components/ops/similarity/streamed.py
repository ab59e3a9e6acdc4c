"""Prototype similarity in tiles, so that memory does not grow with the number of prototypes.

Scores are made tile by tile (prototypes by positions) and reduced at once by an online softmax
(Milakov and Gimelshein, 2018); the backward pass makes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fsmis_components.ops.similarity import shared
from fsmis_components.ops.similarity.shared import to_unit, to_unit_backward

# added to the scores of invalid prototypes: finite, so that no inf - inf arises, and so large
# that one valid prototype erases all invalid ones
_EXCLUDED = -1e30
# scores held at once: on a CPU about a core's second-level cache, elsewhere enough to fill it
_TILE_CPU = 2**18
_TILE_DEVICE = 2**25
# a tile's smallest sides, so that its product stays one that keeps a matrix unit busy
_POSITIONS = 512
_PROTOTYPES = 32
# dropping few prototypes costs more than it saves
_WORTHWHILE = 0.8


def forward(
    query: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the result and what the backward pass needs, as `operator.reduced_similarity`."""
    if valid is not None and shared.applies(prototypes, valid, scale):
        return shared.forward(query, prototypes, valid, scale, eps)
    operands = _prepare(query, prototypes, valid, scale, eps)
    shape = (query.shape[0], operands.prototypes.shape[1], query.shape[2])
    reduced = operands.query.new_empty(shape)
    kept = torch.empty_like(reduced)
    for batch, positions in operands.tiles():
        found = _forward_tile(operands, batch, positions)
        reduced[batch, :, positions], kept[batch, :, positions] = found
    if operands.valid is not None:
        reduced = torch.where(operands.valid.any(2, keepdim=True), reduced, 0.0)
    return reduced, kept


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
    """Return the gradients of query and prototypes, in the precision of the sums."""
    if valid is not None and shared.applies(prototypes, valid, scale):
        return shared.backward(grad, query, prototypes, valid, reduced, kept, scale, eps)
    operands = _prepare(query, prototypes, valid, scale, eps)
    if operands.valid is not None:
        grad = torch.where(operands.valid.any(2, keepdim=True), grad, 0.0)
    grad_query = torch.zeros_like(operands.query)
    grad_prototypes = torch.zeros_like(operands.prototypes)
    for batch, positions in operands.tiles():
        place = operands.query[batch, :, positions]
        # (b, N, 1, l)
        tile_grad, tile_reduced, tile_kept = (
            tensor[batch, :, positions].unsqueeze(2) for tensor in (grad, reduced, kept)
        )
        for chunk in operands.chunks():
            scores = operands.scores(batch, positions, chunk)
            # d (sum_k w_k s_k) / d s_j = w_j (1 + s_j - sum_k w_k s_k)
            grad_scores = (scores - tile_kept).exp_()
            grad_scores.mul_(scores.add_(1.0 - tile_reduced)).mul_(tile_grad)
            grad_scores = grad_scores.flatten(1, 2)  # (b, N * p, l)
            grad_query[batch, :, positions].baddbmm_(
                operands.unit(batch, chunk).transpose(1, 2), grad_scores, alpha=scale
            )
            grad_unit = torch.bmm(grad_scores, place.transpose(1, 2)).mul_(scale)
            grad_unit = grad_unit.unflatten(1, (grad_prototypes.shape[1], -1))
            if grad_prototypes.shape[0] == 1:
                grad_unit = grad_unit.sum(0, keepdim=True)
            _part(grad_prototypes, batch)[:, :, chunk] += grad_unit
    grad_prototypes = to_unit_backward(
        grad_prototypes, operands.prototypes, operands.prototypes_length, 3, eps
    )
    if operands.numbers is not None:
        index = operands.numbers.unsqueeze(-1).expand_as(grad_prototypes)
        every = grad_prototypes.new_zeros(*index.shape[:2], *prototypes.shape[2:])
        grad_prototypes = every.scatter_(2, index, grad_prototypes)
    return (
        to_unit_backward(grad_query, operands.query, operands.query_length, 1, eps),
        grad_prototypes.sum_to_size(prototypes.shape),
    )


def _prepare(
    query: Tensor, prototypes: Tensor, valid: Tensor | None, scale: float, eps: float
) -> _Operands:
    """Return unit vectors of the query and of the prototypes that any query slice may use."""
    numbers = None
    if valid is not None:
        prototypes = prototypes.expand(-1, valid.shape[1], -1, -1)
        numbers = _used_numbers(valid, one_support=prototypes.shape[0] == 1)
        if numbers is not None:
            valid = _take(valid.unsqueeze(-1), numbers).squeeze(-1)
            prototypes = _take(prototypes, numbers)
    query, query_length = to_unit(query, 1, eps)
    prototypes, prototypes_length = to_unit(prototypes.to(query.dtype), 3, eps)
    return _Operands(query, query_length, prototypes, prototypes_length, valid, numbers, scale)


def _used_numbers(valid: Tensor, one_support: bool) -> Tensor | None:
    """Return which prototypes to keep; most cells lie outside a structure.

    Only on a CPU: elsewhere the number that remains would have to be waited for.

    Args:
        valid: (B or 1, N, P) bool.
        one_support: whether all query slices share the prototypes.

    Returns:
        numbers (B or 1, N, K) of prototypes, K as many as the fullest structure needs: the others
        are filled up with invalid ones. None: keep all.
    """
    if valid.device.type != "cpu":
        return None
    kept = valid.any(0, keepdim=True) if one_support else valid
    most = max(1, int(kept.sum(2).max())) if kept.numel() else 1
    if most > _WORTHWHILE * valid.shape[2]:
        return None
    # the sort is stable: prototypes keep their order
    return kept.to(torch.uint8).argsort(dim=2, descending=True, stable=True)[..., :most]


def _take(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Return the vectors (B or 1, N, K, C) of (B or 1, N, P, C) at numbers (B or 1, N, K)."""
    batch = max(tensor.shape[0], numbers.shape[0])
    index = numbers.unsqueeze(-1).expand(batch, -1, -1, tensor.shape[3])
    return tensor.expand(batch, -1, -1, -1).gather(2, index)


@dataclass(frozen=True)
class _Operands:
    """Unit vectors, query (B, C, L) and prototypes (B or 1, N, P, C), and how to tile them."""

    query: Tensor
    query_length: Tensor  # what the query was divided by, (B, 1, L)
    prototypes: Tensor
    prototypes_length: Tensor  # (B or 1, N, P, 1)
    valid: Tensor | None  # (B or 1, N, P)
    numbers: Tensor | None  # which of the caller's prototypes these are, (B or 1, N, P); None: all
    scale: float

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield slices of the batch and of the positions."""
        b, _, length = self.query.shape
        n, p = self.prototypes.shape[1:3]
        budget = self._budget()
        row = n * min(p, self._prototypes_at_once())
        positions = min(length, max(_POSITIONS, budget // row))
        batch = max(1, budget // (row * positions))
        for first in range(0, b, batch):
            for start in range(0, length, positions):
                yield (
                    slice(first, min(b, first + batch)),
                    slice(start, min(length, start + positions)),
                )

    def chunks(self) -> Iterator[slice]:
        """Yield slices of the prototypes."""
        p, step = self.prototypes.shape[2], self._prototypes_at_once()
        for start in range(0, p, step):
            yield slice(start, min(p, start + step))

    def scores(self, batch: slice, positions: slice, chunk: slice) -> Tensor:
        """Return scale times the cosine of one tile, (b, N, p, l)."""
        query = self.query[batch, :, positions]
        chosen = self.unit(batch, chunk)
        if self.valid is None:
            scores = torch.baddbmm(query.new_zeros(1), chosen, query, beta=0, alpha=self.scale)
        else:
            excluded = _part(self.valid, batch)[:, :, chunk].logical_not().to(query.dtype)
            bias = excluded.mul_(_EXCLUDED).flatten(1).unsqueeze(-1)  # (b or 1, N * p, 1)
            scores = torch.baddbmm(bias, chosen, query, alpha=self.scale)
        return scores.unflatten(1, (self.prototypes.shape[1], -1))

    def unit(self, batch: slice, chunk: slice) -> Tensor:
        """Return a chunk of the prototypes as matrices, (b, N * p, C)."""
        chosen = _part(self.prototypes, batch)[:, :, chunk].flatten(1, 2)
        return chosen.expand(self.query[batch].shape[0], -1, -1)

    def _budget(self) -> int:
        return _TILE_CPU if self.query.device.type == "cpu" else _TILE_DEVICE

    def _prototypes_at_once(self) -> int:
        n = max(1, self.prototypes.shape[1])
        return max(_PROTOTYPES, self._budget() // (n * _POSITIONS))


def _forward_tile(operands: _Operands, batch: slice, positions: slice) -> tuple[Tensor, Tensor]:
    """Return the reduced tile and the logarithm of its sum of exponentials."""
    largest: Tensor | float = _EXCLUDED
    total: Tensor | float = 0.0
    weighted: Tensor | float = 0.0
    for chunk in operands.chunks():
        scores = operands.scores(batch, positions, chunk)
        new_largest = scores.amax(2).clamp_min(largest)  # (b, N, l)
        exponentials = (scores - new_largest.unsqueeze(2)).exp_()
        shrink = (largest - new_largest).exp()
        total = total * shrink + exponentials.sum(2)
        weighted = weighted * shrink + scores.mul_(exponentials).sum(2)
        largest = new_largest
    assert isinstance(total, Tensor)
    return weighted / total, largest + total.log()


def _part(tensor: Tensor, batch: slice) -> Tensor:
    """Return the tensor's entries of a slice of the batch, or the one that all share."""
    return tensor if tensor.shape[0] == 1 else tensor[batch]
