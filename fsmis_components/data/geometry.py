"""Slices: a volume seen as a stack of 2D images, and the exact way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.data.volumes import Volume

AXIS_NAMES = {"sagittal": 0, "coronal": 1, "axial": 2}
_SAME_SPACING = 1.01  # spacings that differ by less count as equal
_SAME_DIRECTION = 1e-4  # directions that differ by less count as equal
_THICK = 1.5  # a scan is thick-sliced where its largest spacing exceeds the next by more
TILTED = 50.0  # degrees between slices of support and query from which they show something else
# degrees between slices and the anatomical axes from which those say nothing of rows and columns: a
# heart's short axis is shown as it was acquired
_OBLIQUE = 31.0
_TIE = 10.0  # degrees by which two orders turn unlike where either may be right: 5 about 45
_MAX_FACTOR = 8  # a query more than 8 times larger, or smaller, than the support: a wrong header


@dataclass(frozen=True)
class SliceGrid:
    """How volumes are cut into slices and at which resolution the network sees them."""

    # 0 left-right (sagittal slices), 1 posterior-anterior (coronal), 2 inferior-superior (axial)
    slice_axis: int
    # millimetres per pixel in plane, the same in both directions; None: header spacings are not
    # trusted, the larger side of every slice fills `spatial_size`
    spacing: float | None
    spatial_size: int  # pixels of the larger side of the scan from which the grid was chosen
    # unit vectors (right, anterior, superior) along slices, rows and columns of that scan; None:
    # the anatomical axes
    directions: tuple[tuple[float, float, float], ...] | None = None
    # which of slices (0), rows (1) and columns (2) runs along its coarse axis; None: it is
    # near-isotropic, or nothing is known
    thick: int | None = None
    # a structure lies where `field_of_view` would cut: slices of all scans are used as they are
    whole_slices: bool = False

    @property
    def frame(self) -> np.ndarray:
        """The directions (3, 3), one a row; the anatomical axes where none are kept."""
        if self.directions is not None:
            return np.array(self.directions)
        rest = [axis for axis in range(3) if axis != self.slice_axis]
        return np.eye(3)[[self.slice_axis, *rest]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SliceGrid:
        """The grid that `to_dict` described."""
        directions = values.get("directions")  # packs of version 0.1 have none
        return cls(**{**values, "directions": directions and tuple(map(tuple, directions))})


def choose_slice_grid(
    volume: Volume,
    *,
    spatial_size: int = 256,
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
) -> SliceGrid:
    """The grid on which a scan (the support's first) fills `spatial_size` pixels.

    Rows and columns lie as in the body, ascending towards right, anterior and superior; where thick
    slices are turned far away from that, as stored, which is how scanners show them.

    Args:
        volume: the scan.
        spatial_size: pixels of the larger side of a slice, at least 8.
        slice_axis: "axial", "coronal", "sagittal", 0, 1, 2 (see `SliceGrid`), or "auto": the axis
            of the largest spacing; where several share it, the last one of right, anterior,
            superior. Another word is a `DataError`.
        ignore_spacing: do not trust the header; "auto" then takes the axis of fewest voxels.
    """
    if spatial_size < 8:
        raise DataError(f"spatial_size: expected at least 8 pixels, got {spatial_size}.")
    anatomical = StorageOrder.nearest(volume, np.eye(3))
    shape = [volume.shape[axis] for axis in anatomical.axes]
    spacing = [volume.spacing[axis] for axis in anatomical.axes]
    axis = _axis_number(slice_axis)
    if axis is None:
        coarseness = [1.0 / voxels for voxels in shape] if ignore_spacing else spacing
        tied = [a for a in range(3) if coarseness[a] * _SAME_SPACING >= max(coarseness)]
        axis = tied[-1]
    row, column = (a for a in range(3) if a != axis)
    extent = max(shape[a] * spacing[a] for a in (row, column))
    grid = SliceGrid(axis, None if ignore_spacing else extent / spatial_size, spatial_size)
    axes, backwards = anatomical.axes, anatomical.backwards
    order = StorageOrder(
        (axes[axis], axes[row], axes[column]), (backwards[axis], backwards[row], backwards[column])
    )
    coarse = _coarse_axis(volume, ignore_spacing)
    if coarse == order.axes[0] and order.turn(volume, grid.frame) > _OBLIQUE:
        first, second = (stored for stored in range(3) if stored != coarse)
        order = StorageOrder((coarse, first, second), (False, False, False))
    frame = order.directions(volume)
    if np.abs(frame - grid.frame).max() > _SAME_DIRECTION:
        grid = replace(grid, directions=tuple(map(tuple, (frame.round(6) + 0.0).tolist())))
    return replace(grid, thick=None if coarse is None else order.axes.index(coarse))


def own_extent_grid(volume: Volume, grid: SliceGrid) -> SliceGrid:
    """A grid on which slices lie as on another one, but this scan fills `spatial_size` pixels."""
    if grid.spacing is None:
        return grid
    _, rows, columns = _order_on(volume, grid).axes
    extent = max(volume.shape[axis] * volume.spacing[axis] for axis in (rows, columns))
    return replace(grid, spacing=extent / grid.spatial_size)


class SliceView:
    """A volume as a stack of slices that lie like those of the grid.

    Without directions of its own a grid lies in the body: slices follow each other from left to
    right, posterior to anterior or inferior to superior; in a slice the rows run along the first of
    the two remaining axes of R, A, S and the columns along the second, both ascending. An oblique
    grid turns all of this with it. A scan is read in the order of its own axes that turns least
    away from the grid. Thick slices stay slices: a heart's short axis lies near 45 degrees, where
    the nearest anatomical axis of one patient is not that of the next. Voxels are only reordered,
    so the way back is exact; `slices`, `labels` and `to_native_logits` resize in plane only.

    Args:
        volume: image or label; read slab by slab.
        grid: how slices lie, and the working resolution.
        order: how the volume is read; None: the order that turns least away from the grid.

    Attributes:
        tilt: degrees between the direction in which slices follow each other here and on the grid;
            0 where the header says nothing of it.

    Raises:
        DataError: the header's spacing gives slices of absurd size on this grid.
    """

    def __init__(self, volume: Volume, grid: SliceGrid, order: StorageOrder | None = None) -> None:
        self.volume, self.grid = volume, grid
        self.order = order or _order_on(volume, grid)
        self._steps = tuple(slice(None, None, -1 if back else 1) for back in self.order.backwards)
        cosine = float(self.order.directions(volume)[0] @ grid.frame[0])
        self.tilt = math.degrees(math.acos(min(max(cosine, -1.0), 1.0))) if volume.oriented else 0.0
        self.depth, rows, columns = (volume.shape[axis] for axis in self.order.axes)
        self.native_size = (rows, columns)
        self.working_size = self._working_size()

    @property
    def is_reordered(self) -> bool:
        """Whether the volume is read in another order than its header asks for on this grid."""
        return self.order != _order_on(self.volume, self.grid)

    @property
    def slice_axis(self) -> int:
        """The anatomical axis nearest to that of the slices, see `SliceGrid`."""
        return StorageOrder.nearest(self.volume, np.eye(3)).axes.index(self.order.axes[0])

    @property
    def native_spacing(self) -> tuple[float, float, float]:
        """Millimetres between slices, rows and columns of `native`."""
        through, row, column = (self.volume.spacing[axis] for axis in self.order.axes)
        return through, row, column

    @property
    def working_spacing(self) -> tuple[float, float]:
        """Millimetres between slices and between pixels of `slices`."""
        through, row, _ = self.native_spacing
        return through, row * self.native_size[0] / self.working_size[0]

    def stored_slice(self, index: int) -> tuple[int, int]:
        """The stored axis along which slices follow each other, and a slice's number along it."""
        return self.order.axes[0], self.depth - 1 - index if self.order.backwards[0] else index

    def native(self, start: int, stop: int) -> np.ndarray:
        """Slices start..stop-1 as stored values (n, h, w), without resampling."""
        if self.order.backwards[0]:
            start, stop = self.depth - stop, self.depth - start
        index = [slice(None)] * 3
        index[self.order.axes[0]] = slice(start, stop)
        return self.stacked(np.asarray(self.volume.data[tuple(index)]))

    def slices(self, start: int, stop: int) -> Tensor:
        """Slices start..stop-1 for the network, not normalised: float32 (n, 1, H, W).

        Brought to `working_size` bilinearly, antialiased where it shrinks.
        """
        stack = torch.from_numpy(self.native(start, stop).astype(np.float32, order="C"))
        return _resize(stack[:, None], self.working_size)

    def labels(self, start: int, stop: int, values: Sequence[int]) -> Tensor:
        """Masks in slices start..stop-1 of a label volume, float32 (n, N, H, W) of 0 and 1.

        Of the N structures with these label values each is resized linearly, then at least 0.5.
        """
        stack = self.native(start, stop)
        masks = torch.from_numpy(np.stack([stack == value for value in values], axis=1))
        return (_resize(masks.float(), self.working_size) >= 0.5).float()

    def to_native_logits(self, logits: Tensor) -> Tensor:
        """Logits (n, C, H, W) at the native size (n, C, h, w), float32, bilinear."""
        return _resize(logits.float(), self.native_size)

    def native_labels(self) -> np.ndarray:
        """All slices (D, h, w), values and type as stored."""
        return self.native(0, self.depth)

    def restack(self, label_slices: np.ndarray) -> np.ndarray:
        """The exact inverse of the view: label slices (D, h, w) of any type as (X, Y, Z)."""
        return np.transpose(label_slices[self._steps], np.argsort(self.order.axes))

    def stacked(self, part: np.ndarray) -> np.ndarray:
        """An array in the storage order of the volume as slices (D, h, w), not copied."""
        return np.transpose(part, self.order.axes)[self._steps]

    def _working_size(self) -> tuple[int, int]:
        size, spacing = self.grid.spatial_size, self.grid.spacing
        (rows, columns), (_, *steps) = self.native_size, self.native_spacing
        if spacing is None:
            first = second = size / max(rows, columns)
        else:
            first, second = (step / spacing for step in steps)
        height, width = max(1, round(rows * first)), max(1, round(columns * second))
        if not size / _MAX_FACTOR <= max(height, width) <= size * _MAX_FACTOR:
            raise DataError(
                f"{self.volume.title}: slices would have {height} x {width} pixels at the "
                f"support's {spacing:.3g} mm (the support: {size}), so a spacing in a header is "
                "wrong; correct it or set --ignore_spacing True."
            )
        return height, width


def near_isotropic(volume: Volume, grid: SliceGrid) -> bool:
    """Whether a scan may be cut along any axis, because none of its spacings stands out."""
    return _coarse_axis(volume, grid.spacing is None) is None


def display_plane(plane: np.ndarray) -> np.ndarray:
    """A slice (h, w, ...) of a `SliceView` as a radiological picture (w, h, ...).

    Superior (axial slices: anterior) is at the top, the patient's right (sagittal slices: anterior)
    at the left.
    """
    return plane.swapaxes(0, 1)[::-1, ::-1]


def centre_fit(maps: Tensor, size: Sequence[int], fill: float = 0.0) -> Tensor:
    """Crop the last two axes of maps (..., H, W), or pad them with a value, about the centre.

    Fitting back to the former size undoes a padding exactly.
    """
    padding = []
    for axis, wanted in ((-1, size[1]), (-2, size[0])):  # F.pad counts axes from the last
        missing = wanted - maps.shape[axis]
        if missing < 0:
            maps = maps.narrow(axis, -missing // 2, wanted)
        before = max(missing, 0) // 2
        padding += [before, max(missing, 0) - before]
    return F.pad(maps, padding, value=fill) if any(padding) else maps


def _coarse_axis(volume: Volume, ignore_spacing: bool) -> int | None:
    """The stored axis along which a thick-sliced scan was acquired; None: near-isotropic."""
    coarseness = [1 / voxels for voxels in volume.shape] if ignore_spacing else volume.spacing
    _, second, largest = sorted(coarseness)
    return int(np.argmax(coarseness)) if largest > _THICK * second else None


def _order_on(volume: Volume, grid: SliceGrid) -> StorageOrder:
    """How a scan is read on a grid."""
    coarse = _coarse_axis(volume, grid.spacing is None)
    if coarse is None:
        return StorageOrder.nearest(volume, grid.frame)
    order = StorageOrder.nearest(volume, grid.frame, (grid.thick or 0, coarse))
    if grid.thick is None:
        # a near-isotropic support has no slices of its own: beyond this angle its plane is followed
        across = abs(float(order.directions(volume)[0] @ grid.frame[0]))
        if across < math.cos(math.radians(TILTED)):
            return StorageOrder.nearest(volume, grid.frame)
    return order


def candidate_orders(
    volume: Volume, grid: SliceGrid, known: bool = True
) -> tuple[StorageOrder, ...]:
    """The orders in which a scan may have to be read on a grid, that of `SliceView` first.

    By a header that says how the scan lies (`known`) there is one, or two and more where they turn
    about as far away from the grid, as at 45 degrees: all of them show the body, none its mirror
    image. Without one a file may hold its slices in any direction, turned or mirrored; a coarse
    axis tells which axis is that of the slices.
    """
    first, frame = _order_on(volume, grid), grid.frame
    coarse = _coarse_axis(volume, grid.spacing is None)
    kept = None
    if coarse is not None and (known or grid.thick is not None):
        kept = (first.axes.index(coarse), coarse)
    most = first.turn(volume, frame) + _TIE

    def agrees(order: StorageOrder) -> bool:
        hands = np.linalg.det(order.directions(volume)) * np.linalg.det(frame)
        return bool(hands > 0 and order.turn(volume, frame) < most)

    others = (order for order in StorageOrder.every(kept) if order != first)
    return first, *(order for order in others if not known or agrees(order))


def _axis_number(slice_axis: str | int) -> int | None:
    text = str(slice_axis).strip().lower()
    known = {"auto": None, **AXIS_NAMES, "0": 0, "1": 1, "2": 2}
    if text not in known:
        raise DataError(
            f"slice_axis: expected auto, axial, coronal, sagittal, 0, 1 or 2, got {slice_axis!r}."
        )
    return known[text]


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps
    shrinks = size[0] < height or size[1] < width
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
