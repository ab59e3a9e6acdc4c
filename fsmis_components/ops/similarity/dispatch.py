"""The public function of prototype similarity, which chooses a backend."""

from types import ModuleType
from typing import Optional

import torch
from torch import Tensor

from fsmis_components.ops.similarity import reference, streamed
from fsmis_components.ops.similarity.problem import SimilarityProblem, check_inputs
from fsmis_components.ops.similarity.reference import similarity_by_definition

# in order of preference
_BACKENDS = (("streamed", streamed), ("reference", reference))
# scores that fit a core's cache; measured on a CPU
_SMALL_MAP = 2**17


def prototype_similarity(
    query: Tensor,
    prototypes: Tensor,
    # keyword arguments all from here; TorchScript compiles no keyword-only defaults
    valid: Optional[Tensor] = None,
    values: Optional[Tensor] = None,
    reduction: str = "softmax",
    scale: float = 20.0,
    eps: float = 1e-4,
    backend: str = "auto",
) -> Tensor:
    """Return how similar each query position is to the prototypes of each structure.

    With ``s_k = scale * <p_k / max(|p_k|, eps), q / max(|q|, eps)>`` over the valid prototypes:

    - ``softmax``: ``sum_k softmax_k(s) * s_k`` (ALPNet, Ouyang et al., ECCV 2020);
      with values ``sum_k softmax_k(s) * values_k``.
    - ``max``: the largest ``s_k``; with values the values of that prototype.
    - ``logsumexp``: ``log(sum_k exp(s_k))``.
    - ``none``: every ``s_k``, 0 where invalid.

    Without a valid prototype the result is 0 for ``softmax`` and with values, ``-scale`` for
    ``max`` and ``logsumexp``. Sums are taken in float32 for half inputs, also under autocast.

    Args:
        query: (B, C, *space), space of any rank from one.
        prototypes: (B or 1, N or 1, P, C); 1 shares them among the batch, or among the structures
            of valid: then the products are made once for all structures.
        valid: which prototypes exist, (B or 1, N, P) bool; None: all.
        values: what each prototype stands for, (B or 1, N, P, V).
        reduction: ``softmax``, ``max``, ``logsumexp`` or ``none``.
        scale: factor of the cosine, > 0; 20 in ALPNet.
        eps: smallest norm to divide by, > 0; 1e-4 in ALPNet.
        backend: ``auto``, ``streamed`` (memory independent of P) or ``reference``. TorchScript,
            tracing and export always take ``reference``; a scripted call under autocast keeps
            autocast's precision.

    Returns:
        ``none`` (B, N, P, *space), with values (B, N, V, *space), otherwise (B, N, *space), in
        the query's dtype; under autocast in float32, as PyTorch's softmax.

    Raises:
        ValueError: shapes that do not fit, or an unknown reduction or backend.
        TypeError: tensors of the wrong kind.
        NotImplementedError: the backend asked for cannot run, with its reasons.

    Example:
        >>> query = torch.eye(2).reshape(1, 2, 2)  # (B, C, W): two orthogonal positions
        >>> prototypes = torch.tensor([[[[1.0, 0.0]]]])  # (1, N, P, C) = (1, 1, 1, 2)
        >>> prototype_similarity(query, prototypes)
        tensor([[[20.,  0.]]])
    """
    if torch.jit.is_scripting():
        check_inputs(query, prototypes, valid, values, reduction, scale, eps)
        result = similarity_by_definition(query, prototypes, valid, values, reduction, scale, eps)
        return result.to(query.dtype)
    else:
        # a trace would record the checks as warnings
        if not torch.jit.is_tracing():
            check_inputs(query, prototypes, valid, values, reduction, scale, eps)
        problem = SimilarityProblem(query, prototypes, valid, values, reduction, scale, eps)
        device = query.device.type
        dtype = query.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.float32
        # autocast would take the products in half precision
        with torch.autocast(device, enabled=False):
            return _choose(problem, backend).run(problem).to(dtype)


def _choose(problem: SimilarityProblem, backend: str) -> ModuleType:
    """Return the module that is to run the problem."""
    names = [name for name, _ in _BACKENDS]
    if backend != "auto" and backend not in names:
        raise ValueError(
            f"prototype_similarity: expected backend auto, {' or '.join(names)}, got {backend!r}"
        )
    # loops over tiles would be unrolled into a graph of one size
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return reference
    if backend == "auto":
        if _is_small(problem):
            return reference
        return next(module for _, module in _BACKENDS if not module.unsupported_reasons(problem))
    module = dict(_BACKENDS)[backend]
    reasons = module.unsupported_reasons(problem)
    if reasons:
        raise NotImplementedError(
            f"prototype_similarity: backend {backend!r} cannot run {problem.describe()}: "
            + "; ".join(reasons)
        )
    return module


def _is_small(problem: SimilarityProblem) -> bool:
    """Is the whole map so small that tiles would only cost time?"""
    b, n = problem.query.shape[0], problem.num_structures
    return b * n * problem.num_prototypes * problem.query[0, 0].numel() <= _SMALL_MAP
