"""The part of a scan, and of each of its slices, that shows the patient and not the air around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fsmis_components.data.geometry import SliceGrid, SliceView, near_isotropic
from fsmis_components.data.intensity import Normalisation, modality_of
from fsmis_components.data.volumes import Volume

MR_FRACTION = 0.06  # background noise of MR stays below this share of the brightest tissue
CT_FRACTION = 0.005  # windowed CT: air is the lower end of the window, fat lies just above it
# a side of which the patient fills less is cut; tried on CHAOS-T2 and two CT scans of other origin
_LEAST_SHARE = 2 / 3
_MARGIN = 0.1  # share of the cut side that stays on either side of the patient
# share of the fullest row that a row of the patient holds at least: a hand on the table has less
_LEAST_ROW = 0.2
_SMALLEST = 64  # voxels along the rows or columns of a scan below which it is a crop already
_COARSE = 96  # about so many voxels along an axis, or twice, tell where the patient is


@dataclass(frozen=True)
class FieldOfView:
    """A block of a scan's voxels.

    Two scans are compared place by place, so a patient who lies at the side of a wide field of view
    is not found by a support whose field is filled.
    """

    window: tuple[slice, ...]  # along the three stored axes
    shape: tuple[int, int, int]  # of the whole scan

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.window == tuple(slice(0, size) for size in self.shape)

    def cut(self, volume: Volume) -> Volume:
        """The block of a volume of that shape; its voxels stay where they are in the patient."""
        if self.is_whole:
            return volume
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in self.window]
        data = np.asarray(volume.data[self.window])
        return Volume(data, affine, volume.source, volume.oriented)

    def put_back(self, block: np.ndarray) -> np.ndarray:
        """The block's voxels in the whole scan (X, Y, Z), zero around them."""
        if self.is_whole:
            return block
        whole = np.zeros(self.shape, block.dtype)
        whole[self.window] = block
        return whole


def field_of_view(volume: Volume, grid: SliceGrid) -> FieldOfView:
    """What of a scan's rows and columns is used: all of them, or the patient and some air around.

    They are cut where the patient fills less than two thirds of a side. Slices are never left out,
    nor anything where a grid wants whole slices or it is not known which axis they follow.
    """
    window, shape = [slice(0, size) for size in volume.shape], volume.shape
    whole = FieldOfView(tuple(window), shape)
    if grid.whole_slices or (not volume.oriented and near_isotropic(volume, grid)):
        return whole
    through, *in_plane = SliceView(volume, grid).order.axes
    if min(shape[axis] for axis in in_plane) < _SMALLEST:
        return whole
    sides = _patient(volume, through)
    if all((sides[axis][1] - sides[axis][0]) / shape[axis] >= _LEAST_SHARE for axis in in_plane):
        return whole
    for axis in in_plane:
        first, last = sides[axis]
        air = round(_MARGIN / (1 - 2 * _MARGIN) * (last - first))
        window[axis] = slice(max(0, first - air), min(shape[axis], last + air))
    return FieldOfView(tuple(window), shape)


def _patient(volume: Volume, through: int) -> list[tuple[int, int]]:
    """First voxel and the one behind the last along each stored axis where the patient is."""
    places = [_spread(size) for size in volume.shape]
    part = np.asarray(volume.data[np.ix_(*places)], dtype=np.float32)
    voxels, fraction = np.moveaxis(part, through, 0), MR_FRACTION
    if (seen := modality_of(volume)).name == "ct":
        voxels = np.clip(voxels - seen.offset, *Normalisation("ct").window)
        fraction = CT_FRACTION
    # the table, a line or two across, goes
    cross = ndimage.generate_binary_structure(2, 1)[None]
    opened = ndimage.binary_opening(body_mask(voxels, fraction), cross)
    mask = np.moveaxis(opened, 0, through)
    sides = []
    for axis, spread in enumerate(places):
        filled = mask.sum(tuple(other for other in range(3) if other != axis))
        rows = spread[filled >= max(1.0, _LEAST_ROW * filled.max())]
        sides.append((int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, volume.shape[axis]))
    return sides


def _spread(size: int) -> np.ndarray:
    """Places along an axis that are the same from either end, whatever the storage order."""
    places = np.arange(0, size, max(1, size // _COARSE))
    return np.unique(np.concatenate([places, size - 1 - places]))


def body_mask(volume: np.ndarray, fraction: float = MR_FRACTION) -> np.ndarray:
    """Mask of the patient: brighter than a threshold, largest component per slice, no holes.

    The threshold is a fraction of the way from the darkest voxel to the 99th percentile, as
    normalised data have no absolute number such as SSL-ALPNet's. It does not split the histogram in
    two (Otsu would): a crop without background keeps all but its darkest voxels.

    Of a volume (D, H, W), a boolean mask of its shape. A slice with nothing above the threshold is
    empty; a constant volume is patient everywhere, since nothing tells its background.
    """
    darkest = float(volume.min())
    if darkest == volume.max():
        return np.ones(volume.shape, dtype=bool)
    threshold = darkest + fraction * (float(np.quantile(volume, 0.99)) - darkest)
    return np.stack([_largest_filled(plane) for plane in volume > threshold])


def _largest_filled(plane: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(plane)
    if count > 1:
        plane = components == np.bincount(components[plane]).argmax()
    return ndimage.binary_fill_holes(plane)
