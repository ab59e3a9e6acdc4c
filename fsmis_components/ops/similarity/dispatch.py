"""The public function of prototype similarity: it checks its inputs and chooses a backend."""

import math
from typing import Optional

import torch
from torch import Tensor

from fsmis_components.ops.precision import shape_text
from fsmis_components.ops.similarity import triton_backend
from fsmis_components.ops.similarity.operator import solve
from fsmis_components.ops.similarity.reference import similarity_by_definition

# scores that fit a core's cache; measured on a CPU
_SMALL_MAP = 2**15


def prototype_similarity(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor] = None,
    scale: float = 20.0,
    eps: float = 1e-4,
    backend: str = "auto",
) -> Tensor:
    """Return how similar each query position is to the prototypes of each structure.

    With ``s_k = scale * <p_k / max(|p_k|, eps), q / max(|q|, eps)>`` over the valid prototypes it
    is ``sum_k softmax_k(s) * s_k`` (ALPNet, Ouyang et al., ECCV 2020), of a single prototype the
    scaled cosine; without a valid prototype 0. Sums are taken in float32 for half inputs, also
    under autocast.

    Args:
        query: (B, C, *space), space of any rank from one.
        prototypes: (B or 1, N or 1, P, C); 1 shares them among the batch, or among the structures
            of valid: ``streamed`` then makes the products once for all structures.
        valid: which prototypes exist, (B or 1, N, P) bool; None: all.
        scale: factor of the cosine, > 0; 20 in ALPNet.
        eps: smallest norm to divide by, > 0; 1e-4 in ALPNet.
        backend: ``auto``, ``triton`` (fused kernels, NVIDIA GPUs), ``streamed`` (memory
            independent of P) or ``reference``, which alone has a second derivative. ``auto``
            takes the first that can run, for small maps ``reference``. Tracing and export
            always take ``reference``.

    Returns:
        (B, N, *space) in the query's dtype; under autocast in float32, as PyTorch's softmax.

    Raises:
        ValueError: shapes that do not fit, or an unknown backend.
        TypeError: tensors of the wrong kind.
        NotImplementedError: ``triton`` was asked for and cannot run, with the reasons.

    Examples:
        >>> query = torch.eye(2).reshape(1, 2, 2)  # (B, C, W): two orthogonal positions
        >>> prototypes = torch.tensor([[[[1.0, 0.0]]]])  # (1, N, P, C) = (1, 1, 1, 2)
        >>> prototype_similarity(query, prototypes)
        tensor([[[20.,  0.]]])
    """
    # a trace would record the checks as warnings
    if not torch.jit.is_tracing():
        _check_inputs(query, prototypes, valid, scale, eps)
    device = query.device.type
    dtype = query.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.float32
    chosen = _choose(query, prototypes, valid, backend)
    # autocast would take the products in half precision
    with torch.autocast(device, enabled=False):
        if chosen == "reference":
            result = similarity_by_definition(query, prototypes, valid, scale, eps)
        else:
            result = solve(query, prototypes, valid, scale, eps, chosen)
        return result.to(dtype)


def _choose(query: Tensor, prototypes: Tensor, valid: Optional[Tensor], backend: str) -> str:
    """Return the backend that is to run."""
    if backend not in ("auto", "triton", "streamed", "reference"):
        raise ValueError(
            "prototype_similarity: expected backend auto, triton, streamed or reference, got "
            f"{backend!r}"
        )
    if _graph_is_for_elsewhere():
        return "reference"
    if backend in ("streamed", "reference"):
        return backend
    reasons = triton_backend.unsupported_reasons(query, prototypes)
    if backend == "triton":
        if reasons:
            raise NotImplementedError(
                "prototype_similarity: backend 'triton' cannot run query "
                f"{shape_text(query)} {query.dtype} on {query.device}, prototypes "
                f"{shape_text(prototypes)} {prototypes.dtype}: {'; '.join(reasons)}"
            )
        return backend
    structures = prototypes.shape[1] if valid is None else valid.shape[1]
    scores = query.shape[0] * structures * prototypes.shape[2] * math.prod(query.shape[2:])
    if scores <= _SMALL_MAP:  # tiles would only cost time
        return "reference"
    return "streamed" if reasons else "triton"


def _graph_is_for_elsewhere() -> bool:
    """Is a graph recorded that must run without this package, of plain operations only?"""
    if torch.jit.is_tracing():
        return True
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling()  # PyTorch 2.6 cannot tell export from torch.compile


def _check_inputs(
    query: Tensor, prototypes: Tensor, valid: Optional[Tensor], scale: float, eps: float
) -> None:
    """Refuse what :func:`prototype_similarity` does not take."""
    who = "prototype_similarity: "
    if not query.is_floating_point() or not prototypes.is_floating_point():
        raise TypeError(
            f"{who}expected floating point query and prototypes, "
            f"got {query.dtype} and {prototypes.dtype}"
        )
    if query.dim() < 3:
        raise ValueError(
            f"{who}expected query of shape (B, C, *space) with at least one axis of space, "
            f"got {shape_text(query)}"
        )
    b, c = query.shape[0], query.shape[1]
    fits = prototypes.dim() == 4
    if fits:
        fits = prototypes.shape[0] in (b, 1) and prototypes.shape[3] == c
    if not fits:
        raise ValueError(
            f"{who}expected prototypes of shape (B or 1, N or 1, P, C) = ({b} or 1, N, P, {c}), "
            f"got {shape_text(prototypes)}"
        )
    n, p = prototypes.shape[1], prototypes.shape[2]
    if p == 0:
        raise ValueError(
            f"{who}expected at least one prototype, got {shape_text(prototypes)}; "
            "mark prototypes that do not exist in valid"
        )
    if valid is not None:
        fits = valid.dim() == 3
        if fits:
            if n == 1:  # shared by all structures
                n = valid.shape[1]
            fits = valid.shape[0] in (b, 1) and valid.shape[1] == n and valid.shape[2] == p
        if not fits:
            raise ValueError(
                f"{who}expected valid of shape (B or 1, N, P) = ({b} or 1, {n}, {p}), "
                f"got {shape_text(valid)}"
            )
        if valid.dtype != torch.bool:
            raise TypeError(f"{who}expected valid of dtype bool, got {valid.dtype}")
    if not (scale > 0.0 and eps > 0.0):
        raise ValueError(f"{who}expected scale > 0 and eps > 0, got {scale} and {eps}")
