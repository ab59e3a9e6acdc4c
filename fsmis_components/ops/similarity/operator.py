"""Reduced similarity as an operator that PyTorch knows: one node for compiler, autograd and DDP.

Operands are as the caller has them, vectors of any length, so that nothing but them, the result and
one number per position and structure is kept for the backward pass.
"""

from types import ModuleType
from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from fsmis_components.ops.similarity.problem import SimilarityProblem


def solve(problem: SimilarityProblem, backend: str) -> Tensor:
    """Solve the problem by the operator; backend names the module that computes it.

    Returns:
        (B, N, *space), with values (B, N, V, *space), in float64 for a float64 query and in
        float32 otherwise.
    """
    operands = (problem.query.flatten(2), problem.prototypes, problem.valid, problem.values)
    rule = (problem.reduction, problem.scale, problem.eps)
    learns = torch.is_grad_enabled() and any(
        operand is not None and operand.requires_grad for operand in operands
    )
    if learns or torch.compiler.is_compiling():
        reduced, _ = reduced_similarity(*operands, *rule, backend)
    else:  # an operator's first call imports the compiler, which takes a second
        reduced, _ = _module(backend).forward(*operands, *rule)
    return reduced.unflatten(-1, problem.query.shape[2:])


@torch.library.custom_op("fsmis_components::reduced_similarity", mutates_args=())
def reduced_similarity(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduction: str,
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    """Reduce the similarity to prototypes; see :func:`prototype_similarity`.

    Args:
        query: (B, C, L).
        prototypes: (B or 1, N or 1, P, C).
        valid: (B or 1, N, P) bool.
        values: (B or 1, N, P, V).
        reduction: ``softmax``, ``max`` or ``logsumexp``.
        scale: factor of the cosine.
        eps: smallest norm to divide by.
        backend: ``triton`` or ``streamed``.

    Returns:
        the result (B, N, L), with values (B, N, V, L), and what the backward pass needs per
        position (B, N, L): the logarithm of the sum of exponentials, for ``max`` the number
        (int64) of the winner, of no meaning where no prototype is valid. float64 for a float64
        query, float32 otherwise.
    """
    # a graph may run under the autocast of its caller
    with torch.autocast(query.device.type, enabled=False):
        reduced, kept = _module(backend).forward(
            query, prototypes, valid, values, reduction, scale, eps
        )
    return reduced.contiguous(), kept.contiguous()


@torch.library.custom_op("fsmis_components::reduced_similarity_backward", mutates_args=())
def reduced_similarity_backward(
    grad: Tensor,
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduced: Tensor,
    kept: Tensor,
    reduction: str,
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of :func:`reduced_similarity`; the scores are made again.

    Args:
        grad: gradient of reduced.
        query: as given to the operator, like all that is not named here.
        prototypes: see query.
        valid: see query.
        values: see query.
        reduced: what the operator returned.
        kept: what the operator returned.
        reduction: see query.
        scale: see query.
        eps: see query.
        backend: see query.

    Returns:
        gradients of query, prototypes and values, each like its operand; without values the last
        is of shape (0,).
    """
    with torch.autocast(query.device.type, enabled=False):
        grad_query, grad_prototypes, grad_values = _module(backend).backward(
            grad, query, prototypes, valid, values, reduced, kept, reduction, scale, eps
        )
    if values is None:
        grad_values = query.new_empty(0)
    else:
        grad_values = grad_values.to(values.dtype).contiguous()
    return (
        grad_query.to(query.dtype).contiguous(),
        grad_prototypes.to(prototypes.dtype).contiguous(),
        grad_values,
    )


def _module(backend: str) -> ModuleType:
    """Return the module that computes; they call the operator, so they are imported only here."""
    if backend == "triton":
        from fsmis_components.ops.similarity import triton_backend

        return triton_backend
    if backend == "streamed":
        from fsmis_components.ops.similarity import streamed

        return streamed
    raise ValueError(f"reduced_similarity: expected backend triton or streamed, got {backend!r}")


@reduced_similarity.register_fake
def _(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduction: str,
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    n = prototypes.shape[1] if valid is None else valid.shape[1]
    b, length = query.shape[0], query.shape[2]
    shape = (b, n, length) if values is None else (b, n, values.shape[3], length)
    kept_dtype = torch.int64 if reduction == "max" else dtype
    reduced = query.new_empty(shape, dtype=dtype)
    return reduced, query.new_empty((b, n, length), dtype=kept_dtype)


@reduced_similarity_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduced: Tensor,
    kept: Tensor,
    reduction: str,
    scale: float,
    eps: float,
    backend: str,
) -> Tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        prototypes.new_empty(prototypes.shape),
        query.new_empty(0) if values is None else values.new_empty(values.shape),
    )


def _save(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, Tensor]) -> None:
    query, prototypes, valid, values, *ctx.settings = inputs
    ctx.save_for_backward(query, prototypes, valid, values, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # kept never has a gradient


def _differentiate(
    ctx: Any, grad: Optional[Tensor], _: Optional[Tensor]
) -> Tuple[Optional[Tensor], ...]:
    no_settings = (None,) * len(ctx.settings)
    if grad is None:
        return (None, None, None, None, *no_settings)
    query, prototypes, valid, values, reduced, kept = ctx.saved_tensors
    grad_query, grad_prototypes, grad_values = reduced_similarity_backward(
        grad, query, prototypes, valid, values, reduced, kept, *ctx.settings
    )
    return (
        grad_query,
        grad_prototypes,
        None,
        None if values is None else grad_values,
        *no_settings,
    )


def _refuse_second_derivative(ctx: Any, *grads: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
    raise RuntimeError(
        "prototype_similarity: expected to be differentiated once, got a second derivative; "
        "backend 'reference' has one"
    )


reduced_similarity.register_autograd(_differentiate, setup_context=_save)
reduced_similarity_backward.register_autograd(_refuse_second_derivative)
