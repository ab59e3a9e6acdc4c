"""Prototype similarity in fused kernels on NVIDIA GPUs; here they are prepared.

Triton is imported with the first launch, not before.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fsmis_components.ops.similarity.operator import solve
from fsmis_components.ops.similarity.problem import SimilarityProblem
from fsmis_components.ops.similarity.triton_launch import (
    Parts,
    Tile,
    block,
    gradient_tiles,
    launch,
    nominal_blocks,
    reduction_tiles,
    split,
)

_INSTALLED = find_spec("triton") is not None
# whether the kernels run in Triton's interpreter, which takes tensors of any device; for tests
_INTERPRETED = False
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MOST_CHANNELS = 2048
# exponentials of score - scale are normal numbers of float32 down to exp(-2 * scale) = exp(-80)
_LARGEST_BOUNDED_SCALE = 40.0
_COMBINE_TILE = 128


def unsupported_reasons(problem: SimilarityProblem) -> list[str]:
    """Return why this backend cannot run; empty: it can."""
    reasons = []
    device = problem.query.device
    if problem.reduction == "none":
        reasons.append("reduction none asks for the whole map, which leaves nothing to fuse")
    if not _INSTALLED:
        reasons.append("Triton is not installed")
    if not _INTERPRETED:
        if device.type != "cuda":
            reasons.append(f"the tensors are on {device.type}, not on a CUDA device")
        elif torch.version.hip is not None:
            reasons.append("the kernels are written for NVIDIA GPUs")
        elif torch.cuda.get_device_properties(device).major < 8:
            reasons.append("the GPU is older than compute capability 8.0")
    operands = {"query": problem.query, "prototypes": problem.prototypes, "values": problem.values}
    for name, tensor in operands.items():
        if tensor is not None and tensor.dtype not in _DTYPES:
            reasons.append(f"{name} is {tensor.dtype}, not float16, bfloat16 or float32")
    channels = problem.query.shape[1]
    if not 1 <= channels <= _MOST_CHANNELS:
        reasons.append(f"{channels} channels, not 1 to {_MOST_CHANNELS}")
    if problem.values is not None and not 1 <= problem.values.shape[3] <= _MOST_CHANNELS:
        reasons.append(f"values of {problem.values.shape[3]} entries, not 1 to {_MOST_CHANNELS}")
    return reasons


def run(problem: SimilarityProblem) -> Tensor:
    """Solve the problem; memory beside operands and result is independent of P times L."""
    return solve(problem, "triton")


def forward(
    query: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    values: Tensor | None,
    reduction: str,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the reduced similarity and what the backward pass needs of it.

    Args:
        query: (B, C, L), any strides; as all operands float16, bfloat16 or float32.
        prototypes: (B or 1, N or 1, P, C).
        valid: (B or 1, N, P) bool.
        values: (B or 1, N, P, V).
        reduction: ``softmax``, ``max`` or ``logsumexp``.
        scale: factor of the cosine.
        eps: smallest norm to divide by.

    Returns:
        the result in float32, (B, N, L) or with values (B, N, V, L), and (B, N, L): the logarithm
        of the sum of exponentials, for ``max`` the number of the winner (int64). Where no
        prototype is valid these are minus infinity and -1.
    """
    from fsmis_components.ops.similarity.triton_kernels import reduce_scores

    picks = reduction == "max" and values is not None
    task = _Task(query, prototypes, valid, None if picks else values, reduction, scale, eps)
    b, n, length, p, vectors = task.batch, task.structures, task.length, task.p, task.vectors
    parts = split(b * n * nominal_blocks(length), p, query.device)
    shape = (b, n, vectors, length) if vectors else (b, n, length)
    reduced = query.new_empty((parts.parts, *shape), dtype=torch.float32)
    kept_dtype = torch.int64 if reduction == "max" else torch.float32
    kept = query.new_empty((parts.parts, b, n, length), dtype=kept_dtype)

    def programs(tile: Tile) -> int:
        chunks = -(-vectors // tile.BLOCK_D) if vectors else 1
        return -(-length // tile.BLOCK_L) * parts.parts * chunks * b * n

    arguments = {
        **task.arguments,
        "reduced": reduced,
        "kept": kept,
        "num_batch": b,
        "num_structures": n,
        "prototypes_per_part": parts.size,
        "parts": parts.parts,
        # half weights of values must not lie far below 1: float16 would lose them
        "BOUNDED": scale <= _LARGEST_BOUNDED_SCALE and not vectors,
    }
    tiles = reduction_tiles(task.channels, vectors, task.dtype)
    launch(reduce_scores, ("reduce", *task.kind), tiles, programs, arguments, query.device)
    reduced, kept = _combine(reduced, kept, task, parts)
    if values is not None and picks:
        reduced = _pick(values, kept)
    return reduced, kept


def _combine(
    part_reduced: Tensor, part_kept: Tensor, task: _Task, parts: Parts
) -> tuple[Tensor, Tensor]:
    """Join the results of all parts."""
    from fsmis_components.ops.similarity.triton_kernels import combine_parts

    if parts.parts == 1:
        return part_reduced[0], part_kept[0]
    reduced, kept = torch.empty_like(part_reduced[0]), torch.empty_like(part_kept[0])
    groups = task.batch * task.structures
    arguments = {
        "part_reduced": part_reduced,
        "part_kept": part_kept,
        "reduced": reduced,
        "kept": kept,
        "num_groups": groups,
        "num_positions": task.length,
        "parts": parts.parts,
        "scale": task.scale,
        "V": task.vectors,
        "REDUCTION": task.reduction,
        "BLOCK_L": _COMBINE_TILE,
    }
    programs = groups * -(-task.length // _COMBINE_TILE)
    if programs:
        with torch.cuda.device_of(reduced):
            combine_parts[(programs,)](**arguments, enable_fp_fusion=True)
    return reduced, kept


def _pick(values: Tensor, winner: Tensor) -> Tensor:
    """Return the values (B, N, V, L) of the winners (B, N, L), 0 where there is none."""
    b, n, length = winner.shape
    values = values.transpose(2, 3).expand(b, -1, -1, -1)  # (B, N, V, P)
    index = winner.clamp_min(0).unsqueeze(2).expand(-1, -1, values.shape[2], -1)
    picked = values.gather(3, index).float()
    return picked.masked_fill_((winner < 0).unsqueeze(2), 0.0)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, prototypes and values; without values the last is empty.

    Args:
        grad: gradient of reduced, float32.
        query: as in `forward`, like all that is not named here.
        prototypes: see query.
        valid: see query.
        values: see query.
        reduced: what `forward` returned.
        kept: what `forward` returned.
        reduction: see query.
        scale: see query.
        eps: see query.
    """
    task = _Task(query, prototypes, valid, values, reduction, scale, eps)
    grad = grad.to(torch.float32).contiguous()
    centre = reduced if values is None else (grad * reduced).sum(2)
    arguments = {
        **task.arguments,
        "query_lengths": torch.linalg.vector_norm(query, dim=1, dtype=torch.float32),
        "grad": grad,
        "centre": centre.contiguous(),
        "kept": kept.contiguous(),
    }
    grad_values = query.new_empty(0)
    if values is not None:
        grad_values = _prototype_gradient(arguments, task, values).to(values.dtype)
        if reduction == "max":  # which prototype wins does not change in a neighbourhood
            return torch.zeros_like(query), torch.zeros_like(prototypes), grad_values
    return (
        _query_gradient(arguments, task).to(query.dtype),
        _prototype_gradient(arguments, task, None).to(prototypes.dtype),
        grad_values,
    )


def _query_gradient(arguments: dict[str, Any], task: _Task) -> Tensor:
    """Return the gradient of the query, (B, C, L)."""
    from fsmis_components.ops.similarity.triton_query_gradient import query_gradient

    b, channels, length = task.batch, task.channels, task.length
    parts = Parts(1, task.p)
    if task.reduction != "max":  # which looks at the winners only
        parts = split(b * nominal_blocks(length), task.p, task.device)
    result = task.new_result(parts, (b, channels, length))

    def programs(tile: Tile) -> int:
        return -(-length // tile.BLOCK_L) * parts.parts * -(-channels // tile.BLOCK_D) * b

    arguments = {
        **arguments,
        "result": result,
        "num_batch": b,
        "num_sets": task.sets,
        "prototypes_per_part": parts.size,
        "parts": parts.parts,
        "SHARERS": task.structures // task.sets,
        "BLOCK_V": min(64, block(task.vectors)),
    }
    tiles = gradient_tiles(channels, task.vectors, channels, task.dtype)
    launch(query_gradient, ("query", *task.kind), tiles, programs, arguments, task.device)
    return result[0] if parts.parts == 1 else result.sum(0)


def _prototype_gradient(arguments: dict[str, Any], task: _Task, values: Tensor | None) -> Tensor:
    """Return the gradient of the prototypes, or of their values, shaped as these."""
    from fsmis_components.ops.similarity.triton_prototype_gradient import prototype_gradient

    p, length = task.p, task.length
    batch, sets, width = task.prototypes_batch, task.sets, task.channels
    if values is not None:
        batch, sets, width = values.shape[0], values.shape[1], task.vectors
    parts = split(batch * sets * nominal_blocks(p), length, task.device)
    result = task.new_result(parts, (batch, sets, p, width))

    def programs(tile: Tile) -> int:
        return -(-p // tile.BLOCK_P) * parts.parts * -(-width // tile.BLOCK_D) * sets * batch

    arguments = {
        **arguments,
        "norms": task.norms,
        "result": result,
        "num_structures": task.structures,
        "positions_per_part": parts.size,
        "parts": parts.parts,
        "result_batch": batch,
        "result_sets": sets,
        "queries_per_result": task.batch // batch if batch else 1,
        "SHARERS": task.structures // sets,
        "OF_VALUES": values is not None,
        "BLOCK_V": min(64, block(task.vectors)),
    }
    tiles = gradient_tiles(task.channels, task.vectors, width, task.dtype)
    key = ("prototypes", values is not None, *task.kind)
    launch(prototype_gradient, key, tiles, programs, arguments, task.device)
    return result[0] if parts.parts == 1 else result.sum(0)


class _Task:
    """Operands in one dtype, their lengths, and what every kernel is told of them."""

    def __init__(
        self,
        query: Tensor,
        prototypes: Tensor,
        valid: Tensor | None,
        values: Tensor | None,
        reduction: str,
        scale: float,
        eps: float,
    ) -> None:
        dtype = torch.promote_types(query.dtype, prototypes.dtype)
        dtype = dtype if values is None else torch.promote_types(dtype, values.dtype)
        self.dtype, self.device = dtype, query.device
        self.reduction, self.scale = reduction, scale
        self.batch, self.channels, self.length = query.shape
        self.prototypes_batch, self.sets, self.p, _ = prototypes.shape
        self.structures = self.sets if valid is None else valid.shape[1]
        self.vectors = 0 if values is None else values.shape[3]
        self.norms = torch.linalg.vector_norm(prototypes, dim=3, dtype=torch.float32)
        # copies only where dtypes differ; the kernels take any strides
        query, prototypes = query.to(dtype), prototypes.to(dtype)
        values = query.new_empty(1, 1, 1, 1) if values is None else values.to(dtype)
        lengths = self.norms
        if valid is not None:
            lengths = torch.where(valid, self.norms, -1.0).contiguous()
        self.arguments: dict[str, Any] = {
            "query": query,
            "prototypes": prototypes,
            "lengths": lengths,
            "values": values,
            "num_positions": self.length,
            "num_prototypes": self.p,
            "scale": scale,
            "eps": eps,
            "C": self.channels,
            "V": self.vectors,
            "REDUCTION": reduction,
            "PRECISION": _precision(dtype),
        }
        for name, tensor, axes in (
            ("query", query, "bcl"),
            ("prototypes", prototypes, "bnpc"),
            ("lengths", lengths, "bn"),
            ("values", values, "bnpv"),
        ):
            for axis, name_of_axis in enumerate(axes):
                one = tensor.shape[axis] == 1
                stride = 0 if one else tensor.stride(axis)
                self.arguments[f"{name}_stride_{name_of_axis}"] = stride

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the best tile depends on; P and L by their power of two."""
        sizes = (self.channels, self.vectors, block(self.p), block(self.length))
        return (*sizes, self.dtype, self.reduction, self.arguments["PRECISION"])

    def new_result(self, parts: Parts, shape: tuple[int, ...]) -> Tensor:
        """Return memory for (parts, *shape); float32 where parts are still to be added."""
        dtype = self.dtype if parts.parts == 1 else torch.float32
        return torch.empty((parts.parts, *shape), dtype=dtype, device=self.device)


def _precision(dtype: torch.dtype) -> str:
    """Return how float32 is multiplied; beside half operands it only meets weights of theirs."""
    settings = torch.backends.cuda.matmul
    if hasattr(settings, "fp32_precision"):
        allowed = settings.fp32_precision == "tf32"
    else:  # before PyTorch 2.9
        allowed = settings.allow_tf32
    return "tf32" if allowed or dtype != torch.float32 else "ieee"
