"""The checked inputs of a similarity problem."""

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from fsmis_components.ops.precision import shape_text


@dataclass(frozen=True)
class SimilarityProblem:
    """Inputs of :func:`prototype_similarity`, already checked; see there for the fields."""

    query: Tensor
    prototypes: Tensor
    valid: Optional[Tensor]
    values: Optional[Tensor]
    reduction: str
    scale: float
    eps: float

    @property
    def num_prototypes(self) -> int:
        """Prototypes per structure, P."""
        return self.prototypes.shape[2]

    @property
    def num_structures(self) -> int:
        """Structures, N: those of valid where all share the prototypes."""
        return self.prototypes.shape[1] if self.valid is None else self.valid.shape[1]

    @property
    def shares_prototypes(self) -> bool:
        """Whether several structures share one set of prototypes."""
        return self.prototypes.shape[1] == 1 and self.num_structures > 1

    def describe(self) -> str:
        """Return the inputs in one line, for messages."""
        valid = "None" if self.valid is None else shape_text(self.valid)
        values = "None" if self.values is None else shape_text(self.values)
        return (
            f"query {shape_text(self.query)} {self.query.dtype} on {self.query.device}, "
            f"prototypes {shape_text(self.prototypes)} {self.prototypes.dtype}, "
            f"valid {valid}, values {values}, reduction {self.reduction!r}"
        )


def check_inputs(
    query: Tensor,
    prototypes: Tensor,
    valid: Optional[Tensor],
    values: Optional[Tensor],
    reduction: str,
    scale: float,
    eps: float,
) -> None:
    """Refuse inputs that do not form a problem; also runs inside TorchScript.

    Raises:
        ValueError: a shape, the reduction, the scale or eps is not as documented.
        TypeError: a tensor has the wrong kind of numbers.
    """
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
    if values is not None:
        fits = values.dim() == 4
        if fits:
            fits = values.shape[0] in (b, 1) and values.shape[1] == n and values.shape[2] == p
        if not fits:
            raise ValueError(
                f"{who}expected values of shape (B or 1, N, P, V) = ({b} or 1, {n}, {p}, V), "
                f"got {shape_text(values)}"
            )
        if not values.is_floating_point():
            raise TypeError(f"{who}expected floating point values, got {values.dtype}")
        if reduction not in ("softmax", "max"):
            raise ValueError(
                f"{who}expected no values with reduction {reduction}; "
                "values are averaged by softmax or picked by max"
            )
    if reduction not in ("none", "softmax", "max", "logsumexp"):
        raise ValueError(
            f"{who}expected reduction none, softmax, max or logsumexp, got {reduction}"
        )
    if not scale > 0.0:
        raise ValueError(f"{who}expected scale > 0, got {scale}")
    if not eps > 0.0:
        raise ValueError(f"{who}expected eps > 0, got {eps}")
