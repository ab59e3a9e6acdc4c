"""Similarity as an operator that PyTorch knows: one node for compiler, autograd and DDP.

Operands are as the caller has them, vectors of any length, so that nothing but them, the result and
one number per position and structure is kept for the backward pass.
"""

from types import ModuleType
from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from fsmis_components.ops.similarity import streamed, triton_backend


def solve(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    scale: float,
    eps: float,
    backend: str,
) -> Tensor:
    """Solve a problem of :func:`prototype_similarity` by the operator, under no autocast.

    Returns:
        (B, N, *space), in float64 for a float64 query and in float32 otherwise.
    """
    arguments = (query.flatten(2), prototypes, valid, scale, eps)
    learns = torch.is_grad_enabled() and (query.requires_grad or prototypes.requires_grad)
    if learns or torch.compiler.is_compiling():
        reduced, _ = reduced_similarity(*arguments, backend)
    else:  # an operator's first call imports the compiler, which takes a second
        reduced, _ = _module(backend).forward(*arguments)
    return reduced.unflatten(-1, query.shape[2:])


@torch.library.custom_op("fsmis_components::reduced_similarity", mutates_args=())
def reduced_similarity(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    """Reduce the similarity to prototypes; see :func:`prototype_similarity`.

    Args:
        query: (B, C, L).
        prototypes: (B or 1, N or 1, P, C).
        valid: (B or 1, N, P) bool.
        scale: factor of the cosine.
        eps: smallest norm to divide by.
        backend: ``triton`` or ``streamed``.

    Returns:
        the result and the logarithm of the sum of exponentials, which the backward pass needs,
        both (B, N, L); float64 for a float64 query, float32 otherwise.
    """
    # a graph may run under the autocast of its caller
    with torch.autocast(query.device.type, enabled=False):
        reduced, kept = _module(backend).forward(query, prototypes, valid, scale, eps)
    return reduced.contiguous(), kept.contiguous()


@torch.library.custom_op("fsmis_components::reduced_similarity_backward", mutates_args=())
def reduced_similarity_backward(
    grad: Tensor,
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    reduced: Tensor,
    kept: Tensor,
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    """Return the gradients of query and prototypes; the scores are made again.

    ``grad`` is the gradient of ``reduced``; this and ``kept`` are what :func:`reduced_similarity`
    returned for the other arguments.
    """
    with torch.autocast(query.device.type, enabled=False):
        grad_query, grad_prototypes = _module(backend).backward(
            grad, query, prototypes, valid, reduced, kept, scale, eps
        )
    return (
        grad_query.to(query.dtype).contiguous(),
        grad_prototypes.to(prototypes.dtype).contiguous(),
    )


def _module(backend: str) -> ModuleType:
    """Return the module that computes."""
    return {"triton": triton_backend, "streamed": streamed}[backend]


@reduced_similarity.register_fake
def _(
    query: Tensor, prototypes: Tensor, valid: Optional[Tensor], *others: Any, **more: Any
) -> Tuple[Tensor, Tensor]:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    n = prototypes.shape[1] if valid is None else valid.shape[1]
    shape = (query.shape[0], n, query.shape[2])
    return query.new_empty(shape, dtype=dtype), query.new_empty(shape, dtype=dtype)


@reduced_similarity_backward.register_fake
def _(
    grad: Tensor, query: Tensor, prototypes: Tensor, *others: Any, **more: Any
) -> Tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), prototypes.new_empty(prototypes.shape)


def _save(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    query, prototypes, valid, *ctx.settings = inputs
    ctx.save_for_backward(query, prototypes, valid, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # kept never has a gradient


def _differentiate(
    ctx: Any, grad: Optional[Tensor], _: Optional[Tensor]
) -> Tuple[Optional[Tensor], ...]:
    no_others = (None,) * (1 + len(ctx.settings))  # of valid and the settings
    if grad is None:
        return (None, None, *no_others)
    query, prototypes, valid, reduced, kept = ctx.saved_tensors
    gradients = reduced_similarity_backward(
        grad, query, prototypes, valid, reduced, kept, *ctx.settings
    )
    return (*gradients, *no_others)


reduced_similarity.register_autograd(_differentiate, setup_context=_save)
