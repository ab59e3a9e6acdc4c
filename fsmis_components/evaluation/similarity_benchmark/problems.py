"""The sizes at which similarity is measured, and made inputs for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fsmis_components.data.errors import DataError

# a reduction of prototype_similarity, and whether the prototypes carry values
REDUCTIONS = {
    "softmax": ("softmax", False),
    "softmax_values": ("softmax", True),
    "max": ("max", False),
    "max_values": ("max", True),
    "logsumexp": ("logsumexp", False),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIDES = (32, 64, 128)
PROTOTYPES = (1, 16, 64, 256, 1024, 4096, 8192)
CHANNELS = (64, 256, 512)


@dataclass(frozen=True)
class SimilarityCase:
    """One problem: queries of `side` x `side` positions against prototypes that the batch shares.

    Attributes:
        reduction: a key of `REDUCTIONS`.
        dtype: a key of `DTYPES`.
        side: height and width of the features.
        prototypes: per structure, P.
        channels: C, and the length of the values where there are any, as in IPSNet's background.
        batch: query slices, B.
        structures: N.
    """

    reduction: str
    dtype: str
    side: int
    prototypes: int
    channels: int
    batch: int = 1
    structures: int = 1

    @property
    def positions(self) -> int:
        """Positions of a query slice, L."""
        return self.side * self.side

    @property
    def scores(self) -> int:
        """Cosines that the problem asks for: the size of the map that need not exist."""
        return self.batch * self.structures * self.prototypes * self.positions

    @property
    def has_values(self) -> bool:
        """Whether the prototypes carry values."""
        return REDUCTIONS[self.reduction][1]

    def describe(self) -> str:
        """Return the case in a few words, for progress."""
        return (
            f"{self.reduction} {self.dtype} {self.side}x{self.side} "
            f"P={self.prototypes} C={self.channels}"
        )


class Inputs(NamedTuple):
    """Operands of a case, and the gradient that comes back to its result."""

    query: Tensor  # (B, C, H, W)
    prototypes: Tensor  # (1, N, P, C)
    values: Tensor | None  # (1, N, P, V)
    grad: Tensor  # (B, N, H, W), with values (B, N, V, H, W)

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """Those that get a gradient."""
        given = (self.query, self.prototypes, self.values)
        return tuple(tensor for tensor in given if tensor is not None)

    def with_gradient(self) -> Inputs:
        """Return copies that ask for their gradient."""

        def asking(tensor: Tensor) -> Tensor:
            return tensor.detach().clone().requires_grad_()

        values = None if self.values is None else asking(self.values)
        return Inputs(asking(self.query), asking(self.prototypes), values, self.grad)


def make_inputs(case: SimilarityCase, device: torch.device, seed: int) -> Inputs:
    """Draw normal operands on the CPU, so that every device gets the same, then move them."""
    generator = torch.Generator().manual_seed(seed)
    dtype = DTYPES[case.dtype]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    b, n, p, c, side = case.batch, case.structures, case.prototypes, case.channels, case.side
    query, prototypes = draw(b, c, side, side), draw(1, n, p, c)
    values = draw(1, n, p, c) if case.has_values else None
    grad = draw(b, n, c, side, side) if case.has_values else draw(b, n, side, side)
    return Inputs(query, prototypes, values, grad)


def plan_cases(
    reductions: Sequence[str],
    dtypes: Sequence[str],
    sides: Sequence[int] = SIDES,
    prototypes: Sequence[int] = PROTOTYPES,
    channels: Sequence[int] = CHANNELS,
    *,
    batch: int = 1,
    structures: int = 1,
    every_combination: bool = False,
) -> list[SimilarityCase]:
    """The cases of a run.

    Every number of prototypes is taken on every side at the middle number of channels, and with
    every number of channels on the middle side.

    Args:
        reductions: keys of `REDUCTIONS`.
        dtypes: keys of `DTYPES`.
        sides: heights and widths of the features.
        prototypes: numbers of prototypes per structure.
        channels: numbers of channels.
        batch: query slices.
        structures: number of structures.
        every_combination: also combine the other sides with the other numbers of channels.

    Raises:
        DataError: an empty list, or a size below 1.
    """
    sizes = {"sides": sides, "prototypes": prototypes, "channels": channels}
    for name, numbers in {**sizes, "batch": [batch], "structures": [structures]}.items():
        if not numbers or min(numbers) < 1:
            raise DataError(f"--{name}: expected numbers of 1 or more, got {list(numbers)}.")
    middle_side, middle_channels = _middle(sides), _middle(channels)
    return [
        SimilarityCase(reduction, dtype, side, p, c, batch, structures)
        for reduction in reductions
        for dtype in dtypes
        for side in sides
        for c in channels
        for p in prototypes
        if every_combination or side == middle_side or c == middle_channels
    ]


def _middle(numbers: Sequence[int]) -> int:
    return sorted(numbers)[len(numbers) // 2]
