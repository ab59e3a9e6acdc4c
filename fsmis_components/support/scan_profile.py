"""What a pack knows of a support scan along its slice axis."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fsmis_components.data.geometry import SliceGrid

# cells along the larger side of a slice: structures are placed by shapes, not outlined
SHAPE_CELLS = 64
_LARGEST = 255
_PLACES = 8  # slices that are looked at mirrored; more of them told mirrored scans no better


@dataclass(frozen=True)
class ScanProfile:
    """One support scan along z; it holds no image."""

    name: str  # of the scan, for messages
    slice_spacing: float | None  # millimetres between slices; None where headers are not trusted
    descriptors: Tensor  # float16 (Z, F), `slice_descriptors` of all slices, labelled or not
    # uint8 (N, Z, h, w), share of each cell (`shape_cell`) that a structure fills, 255 for all of
    # it; between labelled slices interpolated
    shapes: Tensor
    # float32 (N, 2), where each structure begins and ends, in slices; NaN where it is not labelled
    # in this scan
    extents: Tensor
    oriented: bool = True  # whether its header says how it lies in the patient
    # float16 (3, K, F), descriptors of the slices `mirror_places` as the network sees them mirrored
    # along rows, columns and both; None where they were not made
    mirrored: Tensor | None = None
    # uint8 (Z, 12, h, w), `self_similarity` of the cells, by which the scan can be registered; None
    # in packs of former versions
    self_similarity: Tensor | None = None
    # float16 (Z, G), `tissue_shares` of all slices on a coarse grid, of CT; None: MR, or a pack of
    # a former version
    tissues: Tensor | None = None

    @property
    def depth(self) -> int:
        """Number of slices Z."""
        return self.descriptors.shape[0]

    @property
    def open_ends(self) -> Tensor:
        """Whether a structure reaches the first and the last slice, bool (N, 2).

        There the scan ends and not, as far as it tells, the structure.
        """
        first, last = self.extents.T
        return torch.stack([first <= 0, last >= self.depth - 1], 1)

    def field_on(self, working_size: tuple[int, int], cell: int) -> tuple[float, float]:
        """Height and width of this scan's slices as shares of a query's; 1: to within a cell."""
        rows, columns = (
            1.0 if cells == -(-length // cell) else cells * cell / length
            for cells, length in zip(self.shapes.shape[-2:], working_size, strict=True)
        )
        return rows, columns

    def slope_of(self, slice_spacing: float) -> float:
        """Slices of this scan per slice of one of that spacing in millimetres, as headers tell."""
        return slice_spacing / self.slice_spacing if self.slice_spacing else 1.0

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: value for name, value in vars(self).items() if torch.is_tensor(value)}

    def facts(self) -> dict[str, Any]:
        """What is no tensor, as JSON values."""
        facts = {"name": self.name, "slice_spacing": self.slice_spacing}
        return facts if self.oriented else {**facts, "oriented": False}

    def selected(self, index: Tensor) -> ScanProfile:
        """The profile for some structures, int64 (N',)."""
        return replace(self, shapes=self.shapes[index], extents=self.extents[index])


def mirror_places(depth: int) -> np.ndarray:
    """The slices of a scan of that depth that are looked at mirrored."""
    return spread_places(depth, _PLACES)


def spread_places(depth: int, most: int) -> np.ndarray:
    """Evenly spaced slices of a scan of that depth, at most so many, ascending."""
    step = max(1, -(-depth // most))
    return np.arange((depth - 1) % step // 2, depth, step)


def shape_cell(grid: SliceGrid) -> int:
    """Working pixels along the side of a cell of the shapes."""
    return max(1, round(grid.spatial_size / SHAPE_CELLS))


def shapes_and_extents(masks: Tensor, labelled: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """The shapes and the extents of a `ScanProfile`.

    Masks are bool (Z, N, H, W), `labelled`, bool (Z, N), are the slices that show a structure, and
    `cell` is the `shape_cell` of the working grid.
    """
    shapes, extents = [], []
    for index in range(masks.shape[1]):
        slices = torch.nonzero(labelled[:, index]).flatten().tolist()
        extents.append(_extent_of(slices))
        shapes.append(_interpolated(_cells(masks[:, index], cell), slices, extents[-1]))
    return torch.from_numpy(np.stack(shapes)), torch.tensor(extents, dtype=torch.float32)


def _extent_of(slices: list[int]) -> tuple[float, float]:
    """First and last place of a structure, as its labelled slices (ascending) tell; else NaN.

    It goes on for half the distance to the neighbouring labelled slice: half a slice where all are
    labelled; where only the sections at 1/6, 1/2 and 5/6 are, the whole structure.
    """
    if not slices:
        return float("nan"), float("nan")
    before, after = 0.5, 0.5
    if len(slices) > 1:
        before, after = (slices[1] - slices[0]) / 2, (slices[-1] - slices[-2]) / 2
    return slices[0] - before, slices[-1] + after


def _cells(masks: Tensor, cell: int) -> np.ndarray:
    """Share of each cell that masks (Z, H, W) fill; cells at the border count as if padded."""
    padding = (0, -masks.shape[-1] % cell, 0, -masks.shape[-2] % cell)
    padded = F.pad(masks[:, None].float(), padding)
    return F.avg_pool2d(padded, cell)[:, 0].numpy()


def _interpolated(shares: np.ndarray, slices: list[int], extent: tuple[float, float]) -> np.ndarray:
    """Shapes (Z, h, w) as uint8, also in slices that are not labelled.

    Between two labelled slices the signed distance to the outline is interpolated, and beyond the
    last one it falls until the shape vanishes at the end of the extent (shape-based interpolation;
    Raya and Udupa, IEEE TMI 1990).
    """
    result = np.zeros_like(shares)
    distances = {index: _signed_distance(shares[index]) for index in slices}
    for place in range(len(shares)) if slices else ():
        if place in distances:
            result[place] = shares[place]
            continue
        if slices[0] < place < slices[-1]:
            at = bisect(slices, place)
            below, above = slices[at - 1], slices[at]
            share = (place - below) / (above - below)
            distance = distances[below] * (1 - share) + distances[above] * share
        else:
            end = 0 if place < slices[0] else -1
            nearest, reach = slices[end], extent[end]
            fall = abs(place - nearest) / max(abs(reach - nearest), 1e-6)
            distance = distances[nearest] - fall * max(float(distances[nearest].max()), 0.5)
        result[place] = np.clip(distance + 0.5, 0, 1)
    return np.round(result * _LARGEST).astype(np.uint8)


def _signed_distance(share: np.ndarray) -> np.ndarray:
    """Distance to the outline in cells, positive inside."""
    inside = share >= 0.5
    if not inside.any():  # smaller than half a cell: its fullest cell
        inside = share >= share.max()
    if inside.all():
        return np.full(share.shape, float(max(share.shape)), np.float32)
    outward = distance_transform_edt(~inside)
    return (distance_transform_edt(inside) - outward - np.where(inside, 0.5, -0.5)).astype("f4")
