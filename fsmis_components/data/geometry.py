"""Slices: a volume seen as a stack of 2D images, and the exact way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import Volume

AXIS_NAMES = {"sagittal": 0, "coronal": 1, "axial": 2}
_SAME_SPACING = 1.01  # spacings that differ by less count as equal
_MAX_FACTOR = 8  # a query more than 8 times larger, or smaller, than the support: a wrong header


@dataclass(frozen=True)
class SliceGrid:
    """How volumes are cut into slices and at which resolution the network sees them.

    Attributes:
        slice_axis: 0 left-right (sagittal slices), 1 posterior-anterior (coronal), 2
            inferior-superior (axial).
        spacing: millimetres per pixel in plane, the same in both directions; None: header spacings
            are not trusted, the larger side of every slice fills `spatial_size`.
        spatial_size: pixels of the larger side of the scan from which the grid was chosen.
    """

    slice_axis: int
    spacing: float | None
    spatial_size: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SliceGrid:
        """The grid that `to_dict` described."""
        spacing = values["spacing"]
        return cls(
            slice_axis=int(values["slice_axis"]),
            spacing=None if spacing is None else float(spacing),
            spatial_size=int(values["spatial_size"]),
        )


def choose_slice_grid(
    volume: Volume,
    *,
    spatial_size: int = 256,
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
) -> SliceGrid:
    """The grid on which a scan (the support's first) fills `spatial_size` pixels.

    Args:
        volume: the scan.
        spatial_size: pixels of the larger side of a slice.
        slice_axis: "axial", "coronal", "sagittal", 0, 1, 2 (see `SliceGrid`), or "auto": the axis
            of the largest spacing; where several share it, inferior-superior before
            posterior-anterior before left-right.
        ignore_spacing: do not trust the header; "auto" then takes the axis of fewest voxels.

    Raises:
        DataError: an unknown axis or a size below 8 pixels.
    """
    if spatial_size < 8:
        raise DataError(f"spatial_size: expected at least 8 pixels, got {spatial_size}.")
    order = _stored_axes(volume)
    shape = [volume.shape[axis] for axis in order]
    spacing = [volume.spacing[axis] for axis in order]
    axis = _axis_number(slice_axis)
    if axis is None:
        coarseness = [1.0 / voxels for voxels in shape] if ignore_spacing else spacing
        tied = [a for a in range(3) if coarseness[a] * _SAME_SPACING >= max(coarseness)]
        axis = tied[-1]
    extent = max(shape[a] * spacing[a] for a in range(3) if a != axis)
    return SliceGrid(axis, None if ignore_spacing else extent / spatial_size, spatial_size)


class SliceView:
    """A volume as a stack of slices in right-anterior-superior order.

    Slices follow each other from left to right, posterior to anterior or inferior to superior; in
    a slice the rows run along the first of the two remaining axes of R, A, S and the columns along
    the second, both ascending, whatever the storage order. Voxels are only reordered, so the way
    back is exact; `slices`, `labels` and `to_native_logits` resize in plane, never across slices.
    An oblique volume is taken along its own axes, those nearest to R, A, S.

    Args:
        volume: image or label; read slab by slab.
        grid: slice axis and working resolution.

    Raises:
        DataError: the header's spacing gives slices of absurd size on this grid.
    """

    def __init__(self, volume: Volume, grid: SliceGrid) -> None:
        self.volume = volume
        self.grid = grid
        orientation = nibabel.io_orientation(volume.affine)  # (3, 2): RAS axis, direction
        stored = _stored_axes(volume)
        rows, columns = (axis for axis in range(3) if axis != grid.slice_axis)
        # stored axis of slices, rows, columns, and which of them run backwards
        self._order = (stored[grid.slice_axis], stored[rows], stored[columns])
        self._backwards = tuple(bool(orientation[axis, 1] < 0) for axis in self._order)
        self.depth = volume.shape[self._order[0]]
        self.native_size = (volume.shape[self._order[1]], volume.shape[self._order[2]])
        self.working_size = self._working_size()

    @property
    def native_spacing(self) -> tuple[float, float, float]:
        """Millimetres between slices, rows and columns of `native`."""
        through, row, column = (self.volume.spacing[axis] for axis in self._order)
        return through, row, column

    @property
    def working_spacing(self) -> tuple[float, float]:
        """Millimetres between slices and between pixels of `slices`."""
        through, row, _ = (self.volume.spacing[axis] for axis in self._order)
        return through, row * self.native_size[0] / self.working_size[0]

    def stored_slice(self, index: int) -> tuple[int, int]:
        """The stored axis along which slices follow each other, and a slice's number along it."""
        return self._order[0], self.depth - 1 - index if self._backwards[0] else index

    def native(self, start: int, stop: int) -> np.ndarray:
        """Slices start..stop-1 as stored values (n, h, w), without resampling."""
        self._check_range(start, stop)
        first, last = start, stop
        if self._backwards[0]:
            first, last = self.depth - stop, self.depth - start
        index = [slice(None)] * 3
        index[self._order[0]] = slice(first, last)
        return self._turned(np.asarray(self.volume.data[tuple(index)]))

    def slices(self, start: int, stop: int) -> Tensor:
        """Slices start..stop-1 for the network, not normalised.

        Returns:
            float32 (n, 1, H, W) at `working_size`, bilinear, antialiased where it shrinks.
        """
        stack = torch.from_numpy(self.native(start, stop).astype(np.float32, order="C"))
        return _resize(stack[:, None], self.working_size)

    def labels(self, start: int, stop: int, values: Sequence[int]) -> Tensor:
        """Masks of structures in slices start..stop-1 of a label volume.

        Args:
            start: first slice.
            stop: one past the last slice.
            values: label value of each of the N structures.

        Returns:
            float32 (n, N, H, W) of 0 and 1: each structure resized linearly, then at least 0.5.
        """
        stack = self.native(start, stop)
        masks = np.stack([stack == value for value in values], axis=1)
        resized = _resize(torch.from_numpy(masks).float(), self.working_size)
        return (resized >= 0.5).float()

    def to_native_logits(self, logits: Tensor) -> Tensor:
        """Logits (n, C, H, W) at the native size (n, C, h, w), float32, bilinear."""
        return _resize(logits.float(), self.native_size)

    def native_labels(self) -> np.ndarray:
        """All slices (D, h, w) of a label volume, values and type as stored."""
        return self.native(0, self.depth)

    def restack(self, label_slices: np.ndarray) -> np.ndarray:
        """The exact inverse of the view.

        Args:
            label_slices: (D, h, w), any type.

        Returns:
            (X, Y, Z) in the storage order of the volume.
        """
        expected = (self.depth, *self.native_size)
        if label_slices.shape != expected:
            raise ValueError(f"restack: expected (D, h, w) = {expected}, got {label_slices.shape}")
        flipped = label_slices[tuple(_direction(back) for back in self._backwards)]
        return np.transpose(flipped, np.argsort(self._order))

    def _turned(self, part: np.ndarray) -> np.ndarray:
        turned = np.transpose(part, self._order)
        return turned[tuple(_direction(back) for back in self._backwards)]

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= self.depth:
            raise ValueError(f"expected slices within 0..{self.depth}, got {start}..{stop}")

    def _working_size(self) -> tuple[int, int]:
        size, spacing = self.grid.spatial_size, self.grid.spacing
        if spacing is None:
            steps = [size / max(self.native_size)] * 2
        else:
            steps = [self.volume.spacing[axis] / spacing for axis in self._order[1:]]
        height, width = (
            max(1, round(length * step))
            for length, step in zip(self.native_size, steps, strict=True)
        )
        if not size / _MAX_FACTOR <= max(height, width) <= size * _MAX_FACTOR:
            raise DataError(
                f"{self.volume.title}: slices would have {height} x {width} pixels at the "
                f"support's {spacing:.3g} mm (the support: {size}), so a spacing in a header is "
                "wrong; correct it or set --ignore_spacing True."
            )
        return height, width


def display_plane(plane: np.ndarray) -> np.ndarray:
    """A slice (h, w) or (h, w, 3) of a `SliceView` as a picture in the radiological convention.

    Returns:
        (w, h) or (w, h, 3): superior (axial slices: anterior) at the top, the patient's right
        (sagittal slices: anterior) at the left.
    """
    return plane.swapaxes(0, 1)[::-1, ::-1]


def centre_fit(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Crop or pad with zeros the last two axes about the centre.

    Fitting back to the former size undoes a padding exactly.

    Args:
        maps: (..., H, W).
        size: the new height and width.
    """
    padding = []
    for axis, wanted in ((-1, size[1]), (-2, size[0])):  # F.pad counts axes from the last
        missing = wanted - maps.shape[axis]
        if missing < 0:
            maps = maps.narrow(axis, -missing // 2, wanted)
        before = max(missing, 0) // 2
        padding += [before, max(missing, 0) - before]
    return F.pad(maps, padding) if any(padding) else maps


def _direction(backwards: bool) -> slice:
    return slice(None, None, -1 if backwards else 1)


def _stored_axes(volume: Volume) -> list[int]:
    """For each of the axes R, A, S the stored axis nearest to it."""
    return [int(axis) for axis in np.argsort(nibabel.io_orientation(volume.affine)[:, 0])]


def _axis_number(slice_axis: str | int) -> int | None:
    text = str(slice_axis).strip().lower()
    if text == "auto":
        return None
    number = AXIS_NAMES.get(text, int(text) if text.isdecimal() else -1)
    if number not in (0, 1, 2):
        raise DataError(
            f"slice_axis: expected auto, axial, coronal, sagittal, 0, 1 or 2, got {slice_axis!r}."
        )
    return number


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps
    shrinks = size[0] < height or size[1] < width
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
