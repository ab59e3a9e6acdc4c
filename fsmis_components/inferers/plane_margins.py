"""Margins of several planes of one scan, averaged on the scan's own grid."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.geometry import SliceView

_LOWEST = -20.0  # the scale of margins: no plane alone rules a structure out


class PlaneMargins:
    """The sum of margins (N, X, Y, Z) over planes beside the one that is assembled.

    It lies in an unnamed temporary file, as half precision: 20 structures of a brain are 200 MB,
    which the system keeps in memory where it can.

    Args:
        num_structures: N.
        shape: X, Y, Z of the scan as it is stored.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, num_structures: int, shape: Sequence[int]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (removed with this object)
        size = (num_structures, *shape)
        self._sum = np.memmap(self._file, np.float16, "w+", shape=size)
        self._planes = 1

    def add(self, view: SliceView, start: int, stop: int, margins: Tensor) -> None:
        """Add margins (n, N, h, w) of slices start..stop-1 of a plane; start 0 begins one.

        They are float32 at the scan's own resolution.
        """
        self._planes += start == 0
        for total, added in zip(self._sum, margins.clamp_min(_LOWEST).unbind(1), strict=True):
            view.stacked(total)[start:stop] += added.cpu().numpy().astype(np.float16)

    def fused(self, view: SliceView, start: int, stop: int, margins: Tensor) -> Tensor:
        """The mean over all planes in slices start..stop-1 of another one.

        `margins` (n, N, h, w) is what that plane says.
        """
        others = np.stack([view.stacked(total)[start:stop] for total in self._sum], 1)
        total = torch.from_numpy(others.astype(np.float32)).to(margins)
        return (margins.clamp_min(_LOWEST) + total) / self._planes
