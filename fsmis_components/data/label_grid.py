"""Label maps: whole numbers on the voxels of their image."""

from __future__ import annotations

import nibabel
import numpy as np

from fsmis_components.data.errors import DataError
from fsmis_components.data.stored_array import StoredArray, VoxelArray, chunks

_WHOLE_TOLERANCE = 1e-3  # a float may come back as 0.9999 or 1.0001
_MOST_TOLERANCE = 0.45  # where the slope of the header is so coarse that all would be near
_MANY_VALUES = 64  # with fewer nothing tells a coarse scan from a label
# Of neighbours in 140 structures of a brain 17 % differ, at a quarter of the resolution 48 %; in
# scans of five kinds 88 to 99 %.
_MOST_BORDERS = 0.7
_SAMPLED_VOXELS = 1 << 22
_VOXEL_TOLERANCE = 0.25  # how far, in voxels, a label's corner may lie from its image's


def whole_numbers(data: VoxelArray, title: str) -> np.ndarray:
    """Label values (X, Y, Z) as integers: the stored array where it holds integers.

    A value that is no whole number, or below 0, is a `DataError`.
    """
    if isinstance(data, np.ndarray) and data.dtype.kind in "bu":
        return data.view(np.uint8) if data.dtype.kind == "b" else data
    tolerance = _WHOLE_TOLERANCE
    if isinstance(data, StoredArray) and data.raw.dtype.kind in "iu":
        # 53 written as an integer with a slope of 0.0016 is 52.9984: off by half a step at most
        tolerance = min(tolerance + abs(data.slope) / 2, _MOST_TOLERANCE)
    parts = []
    for chunk in chunks(data):
        whole = np.rint(chunk)
        with np.errstate(invalid="ignore"):  # infinity minus infinity: caught as not whole
            wrong = ~(np.abs(chunk - whole) <= tolerance)
        if wrong.any():
            raise DataError(
                f"{title}: a label holds whole numbers, this one holds {chunk[wrong][0]:.6g}; "
                "save it without interpolation and as integers."
            )
        if whole.min() < 0:
            raise DataError(
                f"{title}: a label holds numbers from 0 (background) on, this one holds "
                f"{int(whole.min())}; give each structure a positive value."
            )
        if data.dtype.kind != "i":
            parts.append(whole.astype(np.min_scalar_type(int(whole.max()))))
    return np.concatenate(parts, axis=-1) if parts else np.asarray(data)


def check_no_scan(label: np.ndarray, title: str, image: VoxelArray | None = None) -> None:
    """Refuse by a `DataError` a label (X, Y, Z) that is a scan.

    It has the voxels of its image in the same storage order, or values that change from voxel to
    voxel.
    """
    if label.max(initial=0) < _MANY_VALUES:
        return
    sample = label[..., :: max(1, label.size // _SAMPLED_VOXELS)]
    count = len(np.unique(sample))
    if count <= _MANY_VALUES:
        return
    if image is not None and all(
        np.array_equal(part, other)
        for part, other in zip(chunks(label), chunks(image), strict=True)
    ):
        raise DataError(
            f"{title}: holds the very voxels of its image; name the label map that belongs to this "
            "scan."
        )
    # along the axis on which they are most alike: thick slices make neighbours differ
    if min(_share_of_borders(sample, axis) for axis in (0, 1)) > _MOST_BORDERS:
        raise DataError(
            f"{title}: holds {count} values that change from voxel to voxel, as a scan does and no "
            "label map; name the label map that belongs to this scan."
        )


def _share_of_borders(label: np.ndarray, axis: int) -> float:
    """Share of neighbours along an axis that differ, of those that are not both background."""
    if label.shape[axis] < 2:
        return 1.0
    moved = np.moveaxis(label, axis, 0)
    first, second = moved[:-1], moved[1:]
    inside = (first != 0) | (second != 0)
    return float(np.mean((first != second)[inside])) if inside.any() else 0.0


def on_image_grid(
    label: np.ndarray,
    label_affine: np.ndarray | None,
    image_shape: tuple[int, int, int],
    image_affine: np.ndarray,
    title: str,
) -> np.ndarray:
    """The label's voxels (X, Y, Z) in the storage order of its image; voxels are only reordered.

    An affine of None says nothing of the label's place: it is taken voxel by voxel. Another shape,
    or another place in space, is a `DataError`.
    """
    if label_affine is None:
        label_affine = image_affine
    elif not _same_grid(label_affine, image_affine, image_shape):
        order = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(label_affine), nibabel.io_orientation(image_affine)
        )
        label_affine = label_affine @ nibabel.orientations.inv_ornt_aff(order, label.shape)
        label = nibabel.apply_orientation(label, order)
    if label.shape != image_shape:
        raise shapes_differ(title, label.shape, image_shape)
    if not _same_grid(label_affine, image_affine, image_shape):
        raise DataError(
            f"{title}: their affines differ, so the label lies elsewhere in space than its image; "
            "look whether it is the label of this scan, and if so save it with the image's header."
        )
    return label


def shapes_differ(
    title: str, label_shape: tuple[int, ...], image_shape: tuple[int, ...]
) -> DataError:
    """The error of a label (X, Y, Z) that is not of its image's shape."""
    return DataError(
        f"{title}: their shapes differ, {label_shape} against {image_shape}; draw the label on "
        "this image or resample it to the image."
    )


def _same_grid(affine: np.ndarray, other: np.ndarray, shape: tuple[int, int, int]) -> bool:
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.asarray(shape) - 1)  # (8, 3)
    moved = nibabel.affines.apply_affine(np.linalg.solve(other, affine), corners)
    return bool(np.abs(moved - corners).max() <= _VOXEL_TOLERANCE)
