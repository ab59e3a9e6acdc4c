"""Prototype similarity in tiles, so that memory does not grow with the number of prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fsmis_components.ops.similarity import operator, shared
from fsmis_components.ops.similarity.problem import SimilarityProblem
from fsmis_components.ops.similarity.unit_vectors import to_unit, to_unit_backward
from fsmis_components.ops.similarity.used_prototypes import put_back, take, used_numbers

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
    return operator.solve(problem, "streamed")


def forward(
    query: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    values: Tensor | None,
    reduction: str,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the result and what the backward pass needs, as `operator.reduced_similarity`."""
    problem = SimilarityProblem(query, prototypes, valid, values, reduction, scale, eps)
    if shared.applies(problem):
        assert valid is not None
        return shared.forward(query, prototypes, valid, scale, eps)
    operands = _prepare(problem)
    b, _, length = query.shape
    n = problem.num_structures
    width = (b, n, length) if values is None else (b, n, values.shape[3], length)
    reduced = operands.query.new_empty(width)
    if reduction == "max":
        kept = torch.empty((b, n, length), dtype=torch.int64, device=query.device)
    else:
        kept = operands.query.new_empty((b, n, length))
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
    return reduced, kept


def backward(
    grad: Tensor,
    query: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    values: Tensor | None,
    reduced: Tensor,
    kept: Tensor,
    reduction: str,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of query, prototypes and values, in the precision of the sums."""
    problem = SimilarityProblem(query, prototypes, valid, values, reduction, scale, eps)
    if shared.applies(problem):
        assert valid is not None
        return (
            *shared.backward(grad, query, prototypes, valid, reduced, kept, scale, eps),
            None,
        )
    operands = _prepare(problem)
    some = operands.some()
    if some is not None:
        grad = torch.where(some if values is None else some.unsqueeze(-1), grad, 0.0)
    grads = _Gradients(
        torch.zeros_like(operands.query),
        torch.zeros_like(operands.prototypes),
        None if operands.values is None else torch.zeros_like(operands.values),
    )
    for batch, positions in operands.tiles():
        tile = _TileGradient(
            grad[batch, ..., positions],
            reduced[batch, ..., positions],
            kept[batch, :, positions].unsqueeze(2),
        )
        for chunk in operands.chunks():
            _backward_chunk(operands, grads, tile, reduction, batch, positions, chunk)
    grad_query = to_unit_backward(grads.query, operands.query, operands.query_length, 1, eps)
    grad_prototypes = to_unit_backward(
        grads.prototypes, operands.prototypes, operands.prototypes_length, 3, eps
    )
    grad_values = None
    if values is not None and grads.values is not None:
        grad_values = put_back(grads.values, operands.numbers, values.shape)
    return grad_query, put_back(grad_prototypes, operands.numbers, prototypes.shape), grad_values


def _prepare(problem: SimilarityProblem) -> _Operands:
    """Return unit vectors of the query and of the prototypes that any query slice may use."""
    prototypes = problem.prototypes.expand(-1, problem.num_structures, -1, -1)
    valid, values = problem.valid, problem.values
    numbers = used_numbers(valid, one_support=prototypes.shape[0] == 1)
    if valid is not None and numbers is not None:
        valid = take(valid.unsqueeze(-1), numbers).squeeze(-1)
        prototypes = take(prototypes, numbers)
        values = None if values is None else take(values, numbers)
    query, query_length = to_unit(problem.query, 1, problem.eps)
    prototypes, prototypes_length = to_unit(prototypes.to(query.dtype), 3, problem.eps)
    values = None if values is None else values.to(query.dtype)
    return _Operands(
        query, query_length, prototypes, prototypes_length, values, valid, numbers, problem.scale
    )


@dataclass(frozen=True)
class _Operands:
    """Unit vectors, query (B, C, L) and prototypes (B or 1, N, P, C), and how to tile them."""

    query: Tensor
    query_length: Tensor  # what the query was divided by, (B, 1, L)
    prototypes: Tensor
    prototypes_length: Tensor  # (B or 1, N, P, 1)
    values: Tensor | None  # (B or 1, N, P, V)
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

    def chunk_values(self, batch: slice, chunk: slice) -> Tensor:
        """Return the values of a chunk, (b or 1, N, p, V)."""
        assert self.values is not None
        return _part(self.values, batch)[:, :, chunk]

    def chunk_numbers(self, batch: slice, chunk: slice) -> Tensor:
        """Return which of the caller's prototypes a chunk holds, (b or 1, N or 1, p, 1)."""
        if self.numbers is None:
            numbers = torch.arange(chunk.start, chunk.stop, device=self.query.device)
            return numbers.reshape(1, 1, -1, 1)
        return _part(self.numbers, batch)[:, :, chunk].unsqueeze(-1)

    def some(self) -> Tensor | None:
        """Return where any prototype is valid, (B or 1, N, 1); None: everywhere."""
        return None if self.valid is None else self.valid.any(2, keepdim=True)

    def _budget(self) -> int:
        return _TILE_CPU if self.query.device.type == "cpu" else _TILE_DEVICE

    def _prototypes_at_once(self) -> int:
        n = max(1, self.prototypes.shape[1])
        return max(_PROTOTYPES, self._budget() // (n * _POSITIONS))


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
    kept: Tensor  # log of the sum, or number of the winner, (b, N, 1, l)


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
    """Return the reduced tile and the number of the winning prototype."""
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
    if operands.values is not None:
        values = operands.chunk_values(batch, slice(None)).transpose(2, 3)  # (b or 1, N, V, P)
        values = values.expand(index.shape[0], -1, -1, -1)
        largest = values.gather(3, index.unsqueeze(2).expand(-1, -1, values.shape[2], -1))
    if operands.numbers is not None:
        numbers = _part(operands.numbers, batch).expand(index.shape[0], -1, -1)
        index = numbers.gather(2, index)
    return largest, index


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
        weights = (tile.kept == operands.chunk_numbers(batch, chunk)).to(scores.dtype)
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
