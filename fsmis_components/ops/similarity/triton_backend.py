"""Prototype similarity in fused kernels on NVIDIA GPUs; here they are prepared.

Triton is imported with the first launch, not before.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_INSTALLED = find_spec("triton") is not None
# whether the kernels run in Triton's interpreter, which takes tensors of any device; for tests
_INTERPRETED = False
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MOST_CHANNELS = 2048


def unsupported_reasons(query: Tensor, prototypes: Tensor) -> list[str]:
    """Return why this backend cannot run; empty: it can."""
    reasons = []
    if not _INSTALLED:
        reasons.append("Triton is not installed")
    if not _INTERPRETED:
        if query.device.type != "cuda":
            reasons.append(f"the tensors are on {query.device.type}, not on a CUDA device")
        elif torch.version.hip is not None:
            reasons.append("the kernels are written for NVIDIA GPUs")
        elif torch.cuda.get_device_properties(query.device).major < 8:
            reasons.append("the GPU is older than compute capability 8.0")
    for name, tensor in (("query", query), ("prototypes", prototypes)):
        if tensor.dtype not in _DTYPES:
            reasons.append(f"{name} is {tensor.dtype}, not float16, bfloat16 or float32")
    channels = query.shape[1]
    if not 1 <= channels <= _MOST_CHANNELS:
        reasons.append(f"{channels} channels, not 1 to {_MOST_CHANNELS}")
    return reasons


def forward(
    query: Tensor, prototypes: Tensor, valid: Tensor | None, scale: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the weighted scores and the logarithm of the sum of exponentials, both (B, N, L).

    Memory beside copies of the operands and the result is independent of P. The arguments are
    those of `prototype_similarity`, with a query (B, C, L).
    """
    from fsmis_components.ops.similarity.triton_kernels import reduce_scores

    arguments, dtype = _operands(query, prototypes, valid, scale, eps)
    batch, structures, length = query.shape[0], arguments["N"], query.shape[2]
    reduced = query.new_empty((batch, structures, length), dtype=torch.float32)
    kept = torch.empty_like(reduced)
    arguments |= {"reduced": reduced, "kept": kept}
    _launch(reduce_scores, arguments, tile_of(dtype), batch * structures, {"BLOCK_L": length})
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
    """Return the gradients of query and prototypes, in float32.

    Memory beside operands and result grows with B times N times P, where these are shared too.
    """
    from fsmis_components.ops.similarity.triton_kernels import prototype_gradient, query_gradient

    arguments, dtype = _operands(query, prototypes, valid, scale, eps)
    for name, tensor in (("grad", grad), ("reduced", reduced), ("kept", kept)):
        arguments[name] = tensor.to(torch.float32).contiguous()
    batch, channels, length = query.shape
    structures, p = arguments["N"], prototypes.shape[2]
    tile = tile_of(dtype, channels)

    grad_query = query.new_empty((batch, length, channels), dtype=torch.float32)
    axes = {"BLOCK_L": length, "BLOCK_D": channels}
    _launch(query_gradient, {**arguments, "result": grad_query}, tile, batch, axes)

    axes = {"BLOCK_P": p, "BLOCK_D": channels}
    result = query.new_empty((batch, structures, p, channels), dtype=torch.float32)
    _launch(prototype_gradient, {**arguments, "result": result}, tile, batch * structures, axes)
    return grad_query.transpose(1, 2), result.sum_to_size(prototypes.shape)


def tile_of(dtype: torch.dtype, channels: int | None = None) -> dict[str, int]:
    """Return the size of one program's work, which needs a third of a GPU's shared memory.

    ``BLOCK_L`` positions, ``BLOCK_P`` prototypes, ``BLOCK_C`` channels of a product at once.

    Args:
        dtype: of the operands.
        channels: of a gradient, of which ``BLOCK_D`` are written at once; None: no gradient.
    """
    block_c, block_d = (32, 64) if dtype == torch.float32 else (64, 128)
    tile = {"BLOCK_L": 64, "BLOCK_P": 64, "BLOCK_C": block_c}
    if channels is not None:
        # a power of two, from the smallest that a product takes
        tile["BLOCK_D"] = min(block_d, max(16, 1 << (channels - 1).bit_length()))
    # with 8 warps, Triton 3.2 crashes on some of these shapes for Hopper
    return {**tile, "num_warps": 4, "num_stages": 2}


def _launch(
    kernel: Any, arguments: dict[str, Any], tile: dict[str, int], groups: int, axes: dict[str, int]
) -> None:
    """Start a kernel."""
    programs = groups * math.prod(-(-length // tile[block]) for block, length in axes.items())
    if programs > 0:  # a batch of 0 has nothing to do
        with torch.cuda.device_of(arguments["query"]):
            # said outright, because the default differs between versions of Triton
            kernel[(programs,)](**arguments, **tile, enable_fp_fusion=True)


def _operands(
    query: Tensor, prototypes: Tensor, valid: Tensor | None, scale: float, eps: float
) -> tuple[dict[str, Any], torch.dtype]:
    """Return what every kernel is told of the operands, and the one dtype that they get."""
    dtype = torch.promote_types(query.dtype, prototypes.dtype)
    lengths = torch.linalg.vector_norm(prototypes, dim=3, dtype=torch.float32)
    if valid is not None:
        lengths = torch.where(valid, lengths, -1.0)
    prototypes = prototypes.to(dtype).contiguous()
    stride_b, stride_n = (
        0 if prototypes.shape[axis] == 1 else prototypes.stride(axis) for axis in range(2)
    )
    arguments = {
        "query": query.to(dtype).transpose(1, 2).contiguous(),
        "prototypes": prototypes,
        "query_lengths": torch.linalg.vector_norm(query, dim=1, dtype=torch.float32).contiguous(),
        "lengths": lengths.expand(query.shape[0], -1, -1).contiguous(),
        "prototypes_stride_b": stride_b,
        "prototypes_stride_n": stride_n,
        "N": lengths.shape[1],
        "L": query.shape[2],
        "P": prototypes.shape[2],
        "scale": scale,
        "eps": eps,
        "C": query.shape[1],
        "PRECISION": _precision(dtype),
    }
    return arguments, dtype


def _precision(dtype: torch.dtype) -> str:
    """Return how float32 is multiplied; beside half operands it only meets weights of theirs."""
    settings = torch.backends.cuda.matmul
    if hasattr(settings, "fp32_precision"):
        allowed = settings.fp32_precision == "tf32"
    else:  # before PyTorch 2.9
        allowed = settings.allow_tf32
    return "tf32" if allowed or dtype != torch.float32 else "ieee"
