"""The public function of prototype similarity, which chooses a backend."""

import math
from types import ModuleType
from typing import List, Optional

import torch
from torch import Tensor

from fsmis_components.ops.similarity import reference, streamed, triton_backend
from fsmis_components.ops.similarity.problem import SimilarityProblem, check_inputs
from fsmis_components.ops.similarity.reference import similarity_by_definition

# in order of preference
_BACKENDS = (("triton", triton_backend), ("streamed", streamed), ("reference", reference))
# scores that fit a core's cache; measured on a CPU
_SMALL_MAP = 2**15
_SMALL_MAP_REASON = f"a map of at most {_SMALL_MAP} scores is as fast in the plain form"


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
            of valid: ``streamed`` then makes the products of a softmax once for all structures.
        valid: which prototypes exist, (B or 1, N, P) bool; None: all.
        values: what each prototype stands for, (B or 1, N, P, V).
        reduction: ``softmax``, ``max``, ``logsumexp`` or ``none``.
        scale: factor of the cosine, > 0; 20 in ALPNet.
        eps: smallest norm to divide by, > 0; 1e-4 in ALPNet.
        backend: ``auto``, ``triton`` (fused, NVIDIA GPUs), ``streamed`` (memory independent of P)
            or ``reference``, which alone has a second derivative. TorchScript, tracing and export
            always take ``reference``; a scripted call under autocast keeps autocast's precision.
            :func:`explain_backends` says what ``auto`` takes.

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


def explain_backends(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor] = None,
    values: Optional[Tensor] = None,
    reduction: str = "softmax",
    scale: float = 20.0,
    eps: float = 1e-4,
) -> str:
    """Return which backend ``auto`` takes for these inputs, and why it passes over the others.

    Args:
        query: as in :func:`prototype_similarity`, like all others.
        prototypes: see query.
        valid: see query.
        values: see query.
        reduction: see query.
        scale: see query.
        eps: see query.

    Returns:
        a line on the inputs and one for each backend, in order of preference.

    Raises:
        ValueError: shapes that do not fit, or an unknown reduction.
        TypeError: tensors of the wrong kind.

    Example:
        >>> query, prototypes = torch.ones(1, 2, 9), torch.ones(1, 1, 3, 2)
        >>> explain_backends(query, prototypes).splitlines()[-1]
        'reference: taken'
    """
    check_inputs(query, prototypes, valid, values, reduction, scale, eps)
    problem = SimilarityProblem(query, prototypes, valid, values, reduction, scale, eps)
    taken = _choose(problem, "auto")
    lines = [problem.describe()]
    for name, module in _BACKENDS:
        reasons = _reasons_against(module, problem)
        if module is taken:
            verdict = "taken"
        elif reasons:
            verdict = "not taken: " + "; ".join(reasons)
        else:
            verdict = "not taken: another comes before it"
        lines.append(f"{name}: {verdict}")
    return "\n".join(lines)


def _choose(problem: SimilarityProblem, backend: str) -> ModuleType:
    """Return the module that is to run the problem."""
    names = [name for name, _ in _BACKENDS]
    if backend != "auto" and backend not in names:
        raise ValueError(
            f"prototype_similarity: expected backend auto, {', '.join(names[:-1])} or {names[-1]}, "
            f"got {backend!r}"
        )
    if _graph_is_for_elsewhere():
        return reference
    if backend == "auto":
        return next(module for _, module in _BACKENDS if not _reasons_against(module, problem))
    module = dict(_BACKENDS)[backend]
    reasons = module.unsupported_reasons(problem)
    if reasons:
        raise NotImplementedError(
            f"prototype_similarity: backend {backend!r} cannot run {problem.describe()}: "
            + "; ".join(reasons)
        )
    return module


def _graph_is_for_elsewhere() -> bool:
    """Is a graph recorded that must run without this package, of plain operations only?"""
    if torch.jit.is_tracing():
        return True
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling()  # PyTorch 2.6 cannot tell export from torch.compile


def _reasons_against(module: ModuleType, problem: SimilarityProblem) -> List[str]:
    """Return why auto passes over a backend; empty: it does not."""
    reasons: List[str] = module.unsupported_reasons(problem)
    if module is not reference and _is_small(problem):
        return [*reasons, _SMALL_MAP_REASON]
    return reasons


def _is_small(problem: SimilarityProblem) -> bool:
    """Is the whole map so small that tiles would only cost time?"""
    query = problem.query
    scores_per_position = query.shape[0] * problem.num_structures * problem.num_prototypes
    return scores_per_position * math.prod(query.shape[2:]) <= _SMALL_MAP
