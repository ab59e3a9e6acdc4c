"""Who is measured: the backends of prototype similarity, and what one would write without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.evaluation.similarity_benchmark.problems import (
    DTYPES,
    REDUCTIONS,
    Inputs,
    SimilarityCase,
)
from fsmis_components.ops.similarity import prototype_similarity

SCALE = 20.0  # ALPNet's
EPS = 1e-4
BASE = "matmul + softmax"
BACKENDS = ("auto", "streamed", "reference", "triton")

Solve = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to solve a case.

    Attributes:
        name: in tables.
        build: makes the function that solves a case.
        reason: why it does not take a case, in words; empty: it does.
    """

    name: str
    build: Callable[[SimilarityCase], Solve]
    reason: Callable[[SimilarityCase], str]


def all_contenders(device: torch.device, broadcast_bytes: int) -> dict[str, Contender]:
    """Contenders by name, the base first.

    Args:
        device: where they run.
        broadcast_bytes: largest expanded tensor that the broadcast cosine may make.
    """

    def too_large(case: SimilarityCase) -> str:
        needed = case.scores * case.channels * DTYPES[case.dtype].itemsize
        if needed <= broadcast_bytes:
            return ""
        return (
            f"its expanded tensor would have {needed / 2**30:.1f} GiB, "
            f"the bound is {broadcast_bytes / 2**30:.1f} GiB"
        )

    def not_attention(case: SimilarityCase) -> str:
        reduction, _ = REDUCTIONS[case.reduction]
        return "" if reduction == "softmax" else f"attention has no {reduction}"

    def no_compiler(case: SimilarityCase) -> str:
        if device.type != "cpu" or any(shutil.which(name) for name in ("g++", "c++", "clang++")):
            return ""
        return "torch.compile needs a C++ compiler on a CPU, and none is installed"

    found = [
        Contender(BASE, _with(matmul_softmax), _takes_all),
        Contender("broadcast cosine", _with(broadcast_cosine), too_large),
        Contender("torch.compile", _compiled, no_compiler),
        Contender("attention", _with(attention), not_attention),
        *(Contender(name, _backend(name), _takes_all) for name in BACKENDS),
    ]
    return {contender.name: contender for contender in found}


def matmul_softmax(inputs: Inputs, reduction: str, has_values: bool) -> Tensor:
    """Solve by one matrix product and PyTorch's reductions, all in the dtype of the inputs."""
    query = F.normalize(inputs.query, dim=1, eps=EPS).flatten(2)  # (B, C, L)
    prototypes = F.normalize(inputs.prototypes, dim=3, eps=EPS)[0]  # (N, P, C)
    scores = SCALE * torch.matmul(prototypes.flatten(0, 1), query)
    scores = scores.unflatten(1, prototypes.shape[:2])  # (B, N, P, L)
    return _reduced(scores, inputs, reduction, has_values)


def broadcast_cosine(inputs: Inputs, reduction: str, has_values: bool) -> Tensor:
    """Solve as the field's released codes do: cosine_similarity of expanded tensors."""
    scores = SCALE * F.cosine_similarity(
        inputs.query[:, None, None], inputs.prototypes[..., None, None], dim=3, eps=EPS
    )
    return _reduced(scores.flatten(3), inputs, reduction, has_values)


def attention(inputs: Inputs, reduction: str, has_values: bool) -> Tensor:
    """Solve by scaled dot product attention: positions ask, unit prototypes are the keys.

    With values the result is attention itself. Without, the values are the keys: the softmax-
    weighted similarity is the product of a position with the softmax-weighted prototype.
    """
    b, n = inputs.query.shape[0], inputs.prototypes.shape[1]
    unit = F.normalize(inputs.query, dim=1, eps=EPS).flatten(2).transpose(1, 2)  # (B, L, C)
    query = unit.unsqueeze(1).expand(-1, n, -1, -1)
    keys = F.normalize(inputs.prototypes, dim=3, eps=EPS).expand(b, -1, -1, -1)
    values = keys if inputs.values is None else inputs.values.expand(b, -1, -1, -1)
    weighted = F.scaled_dot_product_attention(query, keys, values, scale=SCALE)  # (B, N, L, V)
    space = inputs.query.shape[2:]
    if has_values:
        return weighted.transpose(2, 3).unflatten(3, space)
    return SCALE * (query * weighted).sum(3).unflatten(2, space)


def _reduced(scores: Tensor, inputs: Inputs, reduction: str, has_values: bool) -> Tensor:
    """Reduce scores (B, N, P, L)."""
    space = inputs.query.shape[2:]
    if has_values:
        assert inputs.values is not None
        values = inputs.values.transpose(2, 3)  # (1, N, V, P)
        if reduction == "softmax":
            return torch.matmul(values, scores.softmax(2)).unflatten(3, space)
        index = scores.argmax(2, keepdim=True).expand(-1, -1, values.shape[2], -1)
        return values.expand(scores.shape[0], -1, -1, -1).gather(3, index).unflatten(3, space)
    if reduction == "softmax":
        reduced = (scores.softmax(2) * scores).sum(2)
    elif reduction == "max":
        reduced = scores.max(2)[0]
    else:
        reduced = scores.logsumexp(2)
    return reduced.unflatten(2, space)


def _with(function: Callable[[Inputs, str, bool], Tensor]) -> Callable[[SimilarityCase], Solve]:
    def build(case: SimilarityCase) -> Solve:
        reduction, has_values = REDUCTIONS[case.reduction]
        return lambda inputs: function(inputs, reduction, has_values)

    return build


def _compiled(case: SimilarityCase) -> Solve:
    """Compile anew for each case, so that no case pays for the shapes of those before."""
    torch.compiler.reset()
    compiled = torch.compile(matmul_softmax, fullgraph=True, dynamic=False)
    reduction, has_values = REDUCTIONS[case.reduction]
    return lambda inputs: compiled(inputs, reduction, has_values)


def _backend(name: str) -> Callable[[SimilarityCase], Solve]:
    def build(case: SimilarityCase) -> Solve:
        reduction, _ = REDUCTIONS[case.reduction]
        return lambda inputs: prototype_similarity(
            inputs.query,
            inputs.prototypes,
            values=inputs.values,
            reduction=reduction,
            scale=SCALE,
            eps=EPS,
            backend=name,
        )

    return build


def _takes_all(case: SimilarityCase) -> str:
    return ""
