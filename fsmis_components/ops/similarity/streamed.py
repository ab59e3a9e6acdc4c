"""Prototype similarity in tiles, so that memory does not grow with the number of prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.similarity import shared
from fsmis_components.ops.similarity.problem import SimilarityProblem

# added to the scores of invalid prototypes: finite, so that no inf - inf arises, and so large
# that one valid prototype erases all invalid ones
_EXCLUDED = -1e30
# scores held at once: on a CPU about a core's second-level cache, elsewhere enough to fill it
_TILE_CPU = 2**18
_TILE_DEVICE = 2**25
# a tile's smallest sides, so that its product stays one that keeps a matrix unit busy
_POSITIONS = 512
_PROTOTYPES = 32


def unsupported_reasons(problem: SimilarityProblem) -> list[str]:
    """Return why this backend cannot run; empty: it can."""
    if problem.reduction == "none":
        return ["reduction none asks for the whole map, which leaves nothing to stream"]
    return []


def run(problem: SimilarityProblem) -> Tensor:
    """Solve the problem with temporary memory independent of P, forward and backward.

    Scores are made tile by tile (prototypes by positions) and reduced at once by an online
    softmax (Milakov and Gimelshein, 2018); the backward pass makes them again.
    """
    if shared.applies(problem):
        return shared.run(problem)
    if problem.shares_prototypes:
        prototypes = problem.prototypes.expand(-1, problem.num_structures, -1, -1)
        problem = replace(problem, prototypes=prototypes)
    problem = _without_unused(problem)
    query = F.normalize(to_compute_dtype(problem.query), dim=1, eps=problem.eps).flatten(2)
    prototypes = F.normalize(problem.prototypes.to(query.dtype), dim=3, eps=problem.eps)
    values = None if problem.values is None else problem.values.to(query.dtype)
    reduced = _Streamed.apply(
        query, prototypes, values, problem.valid, problem.reduction, problem.scale
    )
    return reduced.unflatten(-1, problem.query.shape[2:])


def _without_unused(problem: SimilarityProblem) -> SimilarityProblem:
    """Drop prototypes that no query slice may use; most cells lie outside a structure.

    Only on a CPU: elsewhere the number that remains would have to be waited for.
    """
    if problem.valid is None or problem.valid.device.type != "cpu":
        return problem
    one_support = problem.prototypes.shape[0] == 1
    kept = problem.valid.any(0, keepdim=True) if one_support else problem.valid
    most = max(1, int(kept.sum(2).max())) if kept.numel() else 1
    if most > 0.8 * problem.num_prototypes:
        return problem
    # the sort is stable: prototypes keep their order, and ties of max their winner
    order = kept.to(torch.uint8).argsort(dim=2, descending=True, stable=True)[..., :most]
    values = None if problem.values is None else _take(problem.values, order)
    valid = problem.valid
    batch = max(valid.shape[0], order.shape[0])
    valid = valid.expand(batch, -1, -1).gather(2, order.expand(batch, -1, -1))
    return replace(problem, prototypes=_take(problem.prototypes, order), valid=valid, values=values)


def _take(tensor: Tensor, order: Tensor) -> Tensor:
    """Return the prototypes (B or 1, N, K, C) of (B or 1, N, P, C) at order (B or 1, N, K)."""
    batch = max(tensor.shape[0], order.shape[0])
    index = order.unsqueeze(-1).expand(batch, -1, -1, tensor.shape[3])
    return tensor.expand(batch, -1, -1, -1).gather(2, index)


@dataclass(frozen=True)
class _Operands:
    """Unit vectors, query (B, C, L) and prototypes (B or 1, N, P, C), and how to tile them."""

    query: Tensor
    prototypes: Tensor
    values: Tensor | None  # (B or 1, N, P, V)
    valid: Tensor | None  # (B or 1, N, P)
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

    def chunk_values(self, batch: slice, chunk: slice) -> Tensor:
        """Return the values of a chunk, (b or 1, N, p, V)."""
        assert self.values is not None
        return _part(self.values, batch)[:, :, chunk]

    def some(self) -> Tensor | None:
        """Return where any prototype is valid, (B or 1, N, 1); None: everywhere."""
        return None if self.valid is None else self.valid.any(2, keepdim=True)

    def _budget(self) -> int:
        return _TILE_CPU if self.query.device.type == "cpu" else _TILE_DEVICE

    def _prototypes_at_once(self) -> int:
        n = max(1, self.prototypes.shape[1])
        return max(_PROTOTYPES, self._budget() // (n * _POSITIONS))


class _Streamed(torch.autograd.Function):
    """Reduce scores over prototypes; save operands and the result, never the scores."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        prototypes: Tensor,
        values: Tensor | None,
        valid: Tensor | None,
        reduction: str,
        scale: float,
    ) -> Tensor:
        """Return (B, N, L), with values (B, N, V, L)."""
        operands = _Operands(query, prototypes, values, valid, scale)
        n = prototypes.shape[1]
        b, _, length = query.shape
        width = (b, n, length) if values is None else (b, n, values.shape[3], length)
        reduced = query.new_empty(width)
        if reduction == "max":
            kept = torch.empty((b, n, length), dtype=torch.int64, device=query.device)
        else:
            kept = query.new_empty((b, n, length))
        for batch, positions in operands.tiles():
            if reduction == "max":
                tile, tile_kept = _forward_max(operands, batch, positions)
            else:
                tile, tile_kept = _forward_softmax(operands, batch, positions, reduction)
            reduced[batch, ..., positions] = tile
            kept[batch, :, positions] = tile_kept
        some = operands.some()
        if some is not None:
            empty = 0.0 if reduction == "softmax" or values is not None else -scale
            some = some if values is None else some.unsqueeze(-1)
            reduced = torch.where(some, reduced, empty)
        ctx.save_for_backward(query, prototypes, values, valid, reduced, kept)
        ctx.reduction, ctx.scale = reduction, scale
        return reduced

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of query, prototypes and values."""
        query, prototypes, values, valid, reduced, kept = ctx.saved_tensors
        operands = _Operands(query, prototypes, values, valid, ctx.scale)
        some = operands.some()
        if some is not None:
            grad = torch.where(some if values is None else some.unsqueeze(-1), grad, 0.0)
        grads = _Gradients(
            torch.zeros_like(query),
            torch.zeros_like(prototypes),
            None if values is None else torch.zeros_like(values),
        )
        with torch.autocast(query.device.type, enabled=False):
            for batch, positions in operands.tiles():
                tile = _TileGradient(
                    grad[batch, ..., positions],
                    reduced[batch, ..., positions],
                    kept[batch, :, positions].unsqueeze(2),
                )
                for chunk in operands.chunks():
                    _backward_chunk(operands, grads, tile, ctx.reduction, batch, positions, chunk)
        return grads.query, grads.prototypes, grads.values, None, None, None


@dataclass(frozen=True)
class _Gradients:
    """Gradients that are summed over tiles, shaped as the operands."""

    query: Tensor
    prototypes: Tensor
    values: Tensor | None


@dataclass(frozen=True)
class _TileGradient:
    """What the backward pass knows about a tile, whichever prototypes it looks at."""

    grad: Tensor  # (b, N, l), with values (b, N, V, l)
    reduced: Tensor  # as grad
    kept: Tensor  # log of the sum, or index of the largest, (b, N, 1, l)


def _forward_softmax(
    operands: _Operands, batch: slice, positions: slice, reduction: str
) -> tuple[Tensor, Tensor]:
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
        if operands.values is not None:
            values = operands.chunk_values(batch, chunk).transpose(2, 3)
            weighted = weighted * shrink.unsqueeze(2) + torch.matmul(values, exponentials)
        elif reduction == "softmax":
            weighted = weighted * shrink + scores.mul_(exponentials).sum(2)
        largest = new_largest
    assert isinstance(total, Tensor)
    log_sum = largest + total.log()
    if reduction == "logsumexp":
        return log_sum, log_sum
    assert isinstance(weighted, Tensor)
    return weighted / (total if operands.values is None else total.unsqueeze(2)), log_sum


def _forward_max(operands: _Operands, batch: slice, positions: slice) -> tuple[Tensor, Tensor]:
    """Return the reduced tile and the index of the largest score."""
    largest, index = None, None
    for chunk in operands.chunks():
        chunk_largest, chunk_index = operands.scores(batch, positions, chunk).max(2)
        chunk_index += chunk.start
        if largest is None or index is None:
            largest, index = chunk_largest, chunk_index
            continue
        better = chunk_largest > largest
        largest = torch.where(better, chunk_largest, largest)
        index = torch.where(better, chunk_index, index)
    assert largest is not None and index is not None
    if operands.values is None:
        return largest, index
    values = operands.chunk_values(batch, slice(None)).transpose(2, 3)  # (b or 1, N, V, P)
    values = values.expand(index.shape[0], -1, -1, -1)
    return values.gather(3, index.unsqueeze(2).expand(-1, -1, values.shape[2], -1)), index


def _backward_chunk(
    operands: _Operands,
    grads: _Gradients,
    tile: _TileGradient,
    reduction: str,
    batch: slice,
    positions: slice,
    chunk: slice,
) -> None:
    """Add what one chunk of prototypes gives to the gradients of a tile."""
    scores = operands.scores(batch, positions, chunk)
    if reduction == "max":
        numbers = torch.arange(chunk.start, chunk.stop, device=scores.device)
        weights = (tile.kept == numbers[:, None]).to(scores.dtype)  # (b, N, p, l)
    else:
        weights = (scores - tile.kept).exp_()

    if operands.values is not None and grads.values is not None:
        _add(grads.values, batch, chunk, torch.matmul(weights, tile.grad.transpose(2, 3)))
        if reduction == "max":
            return  # which prototype wins does not change in a neighbourhood
        slope = torch.matmul(operands.chunk_values(batch, chunk), tile.grad)
        slope -= (tile.grad * tile.reduced).sum(2, keepdim=True)
        grad_scores = weights.mul_(slope)
    elif reduction == "softmax":
        # d (sum_k w_k s_k) / d s_j = w_j (1 + s_j - sum_k w_k s_k)
        grad_scores = weights.mul_(scores.add_(1.0 - tile.reduced.unsqueeze(2)))
        grad_scores *= tile.grad.unsqueeze(2)
    else:
        grad_scores = weights.mul_(tile.grad.unsqueeze(2))

    grad_scores = grad_scores.flatten(1, 2)  # (b, N * p, l)
    grads.query[batch, :, positions].baddbmm_(
        operands.unit(batch, chunk).transpose(1, 2), grad_scores, alpha=operands.scale
    )
    grad_unit = torch.bmm(grad_scores, operands.query[batch, :, positions].transpose(1, 2))
    grad_unit = grad_unit.mul_(operands.scale).unflatten(1, (operands.prototypes.shape[1], -1))
    _add(grads.prototypes, batch, chunk, grad_unit)


def _part(tensor: Tensor, batch: slice) -> Tensor:
    """Return the tensor's entries of a slice of the batch, or the one that all share."""
    return tensor if tensor.shape[0] == 1 else tensor[batch]


def _add(total: Tensor, batch: slice, chunk: slice, part: Tensor) -> None:
    """Add (b, N, p, C) to the prototypes of a chunk, summed over the batch where it shares them."""
    if total.shape[0] == 1:
        part = part.sum(0, keepdim=True)
    _part(total, batch)[:, :, chunk] += part
