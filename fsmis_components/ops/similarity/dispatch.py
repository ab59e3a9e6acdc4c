"""The public function of prototype similarity: it checks its inputs and chooses a backend."""

import math
from types import ModuleType
from typing import Any, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsmis_components.ops.precision import shape_text
from fsmis_components.ops.similarity import streamed, triton_backend
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
            of valid.
        valid: which prototypes exist, (B or 1, N, P) bool; None: all.
        scale: factor of the cosine, > 0; 20 in ALPNet.
        eps: smallest norm to divide by, > 0; 1e-4 in ALPNet.
        backend: ``auto``, ``triton`` (fused kernels, NVIDIA GPUs), ``streamed`` (memory
            independent of P; for prototypes that all structures share, or one for each) or
            ``reference``, which alone has a second derivative. ``auto`` takes the first that can
            run, for small maps ``reference``. Tracing, export and torch.compile always take
            ``reference``.

    Returns:
        (B, N, *space) in the query's dtype; under autocast in float32, as PyTorch's softmax.

    Raises:
        ValueError: shapes that do not fit, or an unknown backend.
        TypeError: tensors of the wrong kind.
        NotImplementedError: the backend that was asked for cannot run, with the reasons.

    Examples:
        >>> query = torch.eye(2).reshape(1, 2, 2)  # (B, C, W): two orthogonal positions
        >>> prototypes = torch.tensor([[[[1.0, 0.0]]]])  # (1, N, P, C) = (1, 1, 1, 2)
        >>> prototype_similarity(query, prototypes)
        tensor([[[20.,  0.]]])
    """
    # a graph of plain operations, which runs without this package
    recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not recorded:  # a trace would record the checks as warnings
        _check_inputs(query, prototypes, valid, scale, eps)
    device = query.device.type
    dtype = query.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.float32
    chosen = None if recorded else _choose(query, prototypes, valid, scale, backend)
    # autocast would take the products in half precision
    with torch.autocast(device, enabled=False):
        if chosen is None:
            result = similarity_by_definition(query, prototypes, valid, scale, eps)
        else:
            reduced = _Reduced.apply(query.flatten(2), prototypes, valid, scale, eps, chosen)
            result = reduced.unflatten(-1, query.shape[2:])
        return result.to(dtype)


class _Reduced(torch.autograd.Function):
    """The result of a backend, (B, N, L).

    The operands are saved as the caller has them: beside them only the result and one number per
    position and structure are kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        prototypes: Tensor,
        valid: Optional[Tensor],
        scale: float,
        eps: float,
        backend: ModuleType,
    ) -> Tensor:
        reduced, kept = backend.forward(query, prototypes, valid, scale, eps)
        ctx.save_for_backward(query, prototypes, valid, reduced, kept)
        ctx.settings, ctx.backend = (scale, eps), backend
        return reduced

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        query, prototypes = ctx.saved_tensors[:2]
        with torch.autocast(query.device.type, enabled=False):
            found = ctx.backend.backward(grad, *ctx.saved_tensors, *ctx.settings)
        gradients = (found[0].to(query.dtype), found[1].to(prototypes.dtype))
        return (*gradients, None, None, None, None)


def _choose(
    query: Tensor, prototypes: Tensor, valid: Optional[Tensor], scale: float, backend: str
) -> Optional[ModuleType]:
    """Return the backend that is to run; None: the definition."""
    modules = {"triton": triton_backend, "streamed": streamed}
    if backend not in ("auto", "reference", *modules):
        raise ValueError(
            "prototype_similarity: expected backend auto, triton, streamed or reference, got "
            f"{backend!r}"
        )
    structures = prototypes.shape[1] if valid is None else valid.shape[1]
    scores = query.shape[0] * structures * prototypes.shape[2] * math.prod(query.shape[2:])
    # of a small map, tiles would only cost time
    if backend == "reference" or (backend == "auto" and scores <= _SMALL_MAP):
        return None
    reasons = {
        "triton": triton_backend.unsupported_reasons(query, prototypes),
        "streamed": streamed.unsupported_reasons(prototypes, valid, scale),
    }
    for name, module in modules.items():
        if backend in ("auto", name) and not reasons[name]:
            return module
    if backend == "auto":
        return None
    raise NotImplementedError(
        f"prototype_similarity: backend {backend!r} cannot run query {shape_text(query)} "
        f"{query.dtype} on {query.device}, prototypes {shape_text(prototypes)} "
        f"{prototypes.dtype}: {'; '.join(reasons[backend])}"
    )


def _check_inputs(
    query: Tensor, prototypes: Tensor, valid: Optional[Tensor], scale: float, eps: float
) -> None:
    """Refuse what :func:`prototype_similarity` does not take."""
    fits = query.dim() >= 3 and prototypes.dim() == 4 and prototypes.shape[2] > 0
    fits = fits and prototypes.shape[0] in (query.shape[0], 1)
    fits = fits and prototypes.shape[3] == query.shape[1]
    tensors = {"query": query, "prototypes": prototypes}
    if valid is not None:
        tensors["valid"] = valid
        fits = fits and valid.dim() == 3 and valid.shape[0] in (query.shape[0], 1)
        fits = fits and prototypes.shape[1] in (valid.shape[1], 1)
        fits = fits and valid.shape[2] == prototypes.shape[2]
    kinds = query.is_floating_point() and prototypes.is_floating_point()
    kinds = kinds and (valid is None or valid.dtype == torch.bool)
    if not fits or not kinds:
        got = ", ".join(f"{name} {shape_text(t)} {t.dtype}" for name, t in tensors.items())
        raise (TypeError if fits else ValueError)(
            "prototype_similarity: expected query (B, C, *space) and prototypes (B or 1, N or 1, "
            "P, C) with P > 0, both floating point, and valid (B or 1, N, P) of dtype bool, got "
            f"{got}"
        )
    if not (scale > 0.0 and eps > 0.0):
        raise ValueError(
            f"prototype_similarity: expected scale > 0 and eps > 0, got {scale} and {eps}"
        )
