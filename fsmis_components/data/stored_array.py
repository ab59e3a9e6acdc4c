"""Voxels as a file stores them, scaled only where they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_CHUNK_VOXELS = 1 << 22  # voxels that a check looks at in one step: 16 MiB as float32
_SAMPLE_VOXELS = 1 << 20  # shares of so many are those of the whole


class StoredArray:
    """Integers on disk with a scale: `slope * raw + intercept`, computed for what is indexed.

    A scan of 1,000 slices stays at two bytes per voxel; a float copy of the whole is made only by
    `numpy.asarray`. The stored values may be a memory map.
    """

    def __init__(self, raw: np.ndarray, slope: float, intercept: float) -> None:
        self.raw = raw
        self.slope = float(slope)
        self.intercept = float(intercept)
        self.shape = raw.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, index: Any, /) -> np.ndarray:
        # float64 inside: float32 would lose the last digits of 32-bit integers
        part = np.asarray(self.raw[index], dtype=np.float64)
        return (part * self.slope + self.intercept).astype(np.float32)

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> np.ndarray:
        return self[...].astype(dtype or self.dtype, copy=False)


VoxelArray = np.ndarray | StoredArray


def chunks(data: VoxelArray) -> Iterator[np.ndarray]:
    """Parts (X, Y, n) of a volume along its last axis, each small enough to compute with."""
    depth = data.shape[-1]
    step = max(1, _CHUNK_VOXELS // max(1, math.prod(data.shape[:-1])))
    for start in range(0, depth, step):
        yield np.asarray(data[..., start : start + step])


def sample(data: VoxelArray) -> np.ndarray:
    """Values (n,) of a regular grid of some million voxels (X, Y, Z), for a histogram."""
    step = max(1, round((math.prod(data.shape) / _SAMPLE_VOXELS) ** (1 / 3)))
    # a thin axis is taken whole: its slices differ
    index = tuple(slice(None, None, step if length > 8 * step else 1) for length in data.shape)
    return np.asarray(data[index]).ravel()


def quantile(data: VoxelArray, share: float) -> float:
    """The value below which a share of the voxels lies (linear between neighbours).

    Works on the stored type, so a scaled volume is not copied as float.
    """
    if isinstance(data, StoredArray):
        raw_share = share if data.slope > 0 else 1.0 - share
        return quantile(data.raw, raw_share) * data.slope + data.intercept
    return float(np.quantile(np.asarray(data).ravel(order="K"), share))
