"""Descriptors of made-up scans whose place along z is known."""

from __future__ import annotations

import torch

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.selection import ScanDescriptors

GRID = SliceGrid(2, 1.0, 64)


def body(first: float, last: float, step: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Return descriptors (D, 96) of the places first, first + step, ... of a body.

    Neighbouring places look alike, distant ones do not; each seed is another patient.
    """
    draw = torch.Generator().manual_seed(7)
    places = torch.arange(first, last + 1e-6, step)[:, None]
    frequencies = torch.rand(96, generator=draw) * 0.5
    phases = torch.rand(96, generator=draw) * 6.28
    own = torch.randn(1, 96, generator=torch.Generator().manual_seed(seed))
    return torch.cos(places * frequencies + phases) + own


def scan(name: str, descriptors: torch.Tensor, spacing: float = 1.0) -> ScanDescriptors:
    return ScanDescriptors(name, GRID, spacing, descriptors.half())
