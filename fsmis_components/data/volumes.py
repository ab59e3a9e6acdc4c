"""Volumes: scans and labels in, masks on the scan's own grid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from fsmis_components.data.dicom import load_dicom_series
from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import (
    MOST_VOXELS,
    StoredArray,
    VoxelArray,
    checked_affine,
    checked_shape,
    chunks,
    is_coded,
    is_identity,
    is_nifti_name,
    open_volume,
    read_voxels,
    squeezed_shape,
    write_nifti,
)

ORIENTED_KEY = "fsmis_oriented"  # of the meta of a MetaTensor: `Volume.oriented`
NO_DATA = 1e30  # no scanner measures so much; marks for "no data" lie here and beyond float32
_WHOLE_TOLERANCE = 1e-3  # a float of a label may come back as 0.9999 or 1.0001
_MOST_TOLERANCE = 0.45  # where the slope of the header is so coarse that all would be near
_MANY_VALUES = 64  # with fewer nothing tells a coarse scan from a label
_SAMPLED_VOXELS = 1 << 22
# Of neighbours in 140 structures of a brain 17 % differ, at a quarter of the resolution 48 %; in
# scans of five kinds 88 to 99 %.
_MOST_BORDERS = 0.7
_VOXEL_TOLERANCE = 0.25  # how far, in voxels, a label's corner may lie from its image's


@dataclass(frozen=True)
class Volume:
    """A scan or a label map on the grid on which it is stored."""

    # voxels (X, Y, Z) in storage order, any real type: a memory map where the file is not
    # compressed, a `StoredArray` where the header scales the values; `numpy.asarray` copies it all
    data: VoxelArray
    affine: np.ndarray  # (4, 4), from voxel index to millimetres right, anterior, superior
    source: Path | None = None  # the file or DICOM folder; None for a volume made in memory
    # whether the header says how the axes lie in the patient; False: the affine is what readers
    # take where qform and sform are not coded, so left and right may be swapped
    oriented: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each stored axis."""
        x, y, z = self.data.shape
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def millilitres(self, label: VoxelArray, value: int) -> float:
        """Volume of a value in a label map (X, Y, Z) of this grid."""
        return self.voxel_ml * sum(int(np.count_nonzero(part == value)) for part in chunks(label))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along each stored axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def title(self) -> str:
        """What messages call it."""
        return "volume" if self.source is None else str(self.source)


def load_image(path: str | Path, most_voxels: int = MOST_VOXELS) -> Volume:
    """Read a scan: a volume file (NIfTI, MGZ, NRRD, MetaImage) or a folder of one DICOM series.

    Axes of length 1 behind the third are dropped.

    Raises:
        DataError: missing, of another format, damaged, not 3D, empty, of more than `most_voxels`
            (told before one is read), NaN, infinite values or marks for no data (1e30 and beyond),
            a singular affine; for a folder see `load_dicom_series`.
    """
    path = Path(path)
    data: VoxelArray
    if path.is_dir():
        data, affine = load_dicom_series(path)
        affine, oriented = checked_affine(affine, path), True
    else:
        image = open_volume(path, most_voxels)
        affine, oriented = checked_affine(image.affine, path), is_coded(image)
        data = read_voxels(image, path, most_voxels)
    if data.dtype.kind == "f":
        _check_values(data, path)
    return Volume(data, affine, path, oriented)


def _check_values(data: VoxelArray, path: Path) -> None:
    """Refuse values that are no intensities; one of them would decide every mean."""
    wrong = np.concatenate([chunk[~(np.abs(chunk) < NO_DATA)] for chunk in chunks(data)])
    if not wrong.size:
        return
    what = f"{wrong.size} voxels hold values like {wrong[0]:.4g}, which mark where there is no data"
    if broken := np.count_nonzero(~np.isfinite(wrong)):
        what = f"{broken} voxels are NaN or infinite"
    raise DataError(
        f"{path}: {what}; replace them by a number (0 outside the body) and save the file again."
    )


def load_label(path: str | Path, image: Volume | None = None) -> Volume:
    """Read a label map (X, Y, Z), a NumPy array of integers, from a file of `open_volume`.

    A label on the same voxels as `image`, the scan that it labels, in another storage order (other
    tools rewrite it) is reordered exactly; one whose header says nothing of its place is taken
    voxel by voxel. Both get the scan's affine. Without a scan the label comes as it is.

    Raises:
        DataError: as `load_image`; not whole numbers from 0; on another grid than the image; a
            scan in place of a label.
    """
    path = Path(path)
    file = open_volume(path)
    affine, shape = checked_affine(file.affine, path), checked_shape(file, path)
    # before a voxel is read: what is small on the disk may fill the memory
    if image is not None and sorted(shape) != sorted(image.shape):
        raise _shapes_differ(path, shape, image)
    data = _whole_numbers(read_voxels(file, path), path)
    if image is not None:
        # what tools write that know nothing of the place is taken voxel by voxel
        placed = is_coded(file) and not is_identity(affine)
        data = _on_image_grid(data, affine if placed else image.affine, image, path)
        affine = image.affine
    _check_no_scan(data, path)
    return Volume(data, affine, path)


def _whole_numbers(data: VoxelArray, path: Path) -> np.ndarray:
    """Label values (X, Y, Z) as integers: the stored array where it holds integers."""
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
                f"{path}: a label holds whole numbers, this one holds {chunk[wrong][0]:.6g}; "
                "save it without interpolation and as integers."
            )
        if whole.min() < 0:
            raise DataError(
                f"{path}: a label holds numbers from 0 (background) on, this one holds "
                f"{int(whole.min())}; give each structure a positive value."
            )
        if data.dtype.kind != "i":
            parts.append(whole.astype(np.min_scalar_type(int(whole.max()))))
    return np.concatenate(parts, axis=-1) if parts else np.asarray(data)


def _check_no_scan(label: np.ndarray, path: Path) -> None:
    """Refuse a label (X, Y, Z) that is a scan: one whose values change from voxel to voxel."""
    if label.max(initial=0) < _MANY_VALUES:
        return
    some = label[..., :: max(1, label.size // _SAMPLED_VOXELS)]
    count = len(np.unique(some))
    # along the axis on which they are most alike: thick slices make neighbours differ
    borders = min(_share_of_borders(np.moveaxis(some, axis, 0)) for axis in (0, 1))
    if count > _MANY_VALUES and borders > _MOST_BORDERS:
        raise DataError(
            f"{path}: holds {count} values that change from voxel to voxel, as a scan does and no "
            "label map; name the label map that belongs to this scan."
        )


def _share_of_borders(label: np.ndarray) -> float:
    """Share of neighbours along the first axis that differ, but for background beside itself."""
    first, second = label[:-1], label[1:]
    inside = (first != 0) | (second != 0)
    return float(np.mean((first != second)[inside])) if inside.any() else float(len(label) < 2)


def _on_image_grid(label: np.ndarray, affine: np.ndarray, image: Volume, path: Path) -> np.ndarray:
    """The label's voxels (X, Y, Z) in the storage order of its image; they are only reordered."""
    if not _same_grid(affine, image):
        order = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(affine), nibabel.io_orientation(image.affine)
        )
        affine = affine @ nibabel.orientations.inv_ornt_aff(order, label.shape)
        label = nibabel.apply_orientation(label, order)
    if label.shape != image.shape:
        raise _shapes_differ(path, label.shape, image)
    if not _same_grid(affine, image):
        raise DataError(
            f"{path} and its image {image.title}: their affines differ, so the label lies "
            "elsewhere in space than its image; look whether it is the label of this scan, and if "
            "so save it with the image's header."
        )
    return label


def _shapes_differ(path: Path, shape: tuple[int, ...], image: Volume) -> DataError:
    return DataError(
        f"{path} and its image {image.title}: their shapes differ, {shape} against {image.shape}; "
        "draw the label on this image or resample it to the image."
    )


def _same_grid(affine: np.ndarray, image: Volume) -> bool:
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.asarray(image.shape) - 1)  # (8, 3)
    moved = nibabel.affines.apply_affine(np.linalg.solve(image.affine, affine), corners)
    return bool(np.abs(moved - corners).max() <= _VOXEL_TOLERANCE)


def save_mask(
    path: str | Path,
    label: np.ndarray,
    like: Volume,
    ready: Callable[[Path], object] | None = None,
) -> Path:
    """Write a label map with the header of the scan `like`, as `write_nifti` writes.

    The label (X, Y, Z) holds whole numbers from 0 in the storage order of the scan; they are stored
    in the smallest unsigned type that holds them. Of the scan shape, affine, qform and sform codes,
    units and description are kept; header extensions are not, as they may hold patient data.
    """
    smallest = np.min_scalar_type(int(label.max()))
    return write_nifti(_with_header_of(like, label.astype(smallest, copy=False)), Path(path), ready)


def save_shares(path: str | Path, steps: np.ndarray, like: Volume) -> Path:
    """Write a map (X, Y, Z) of shares in [0, 1], given as uint8 in steps of 1 / 255.

    A byte with a slope in the header is a quarter of float32 and packs much better; every reader
    of NIfTI gives the shares back. Other arguments and errors as `save_mask`.
    """
    image = _with_header_of(like, np.asarray(steps, dtype=np.uint8))
    image.header.set_slope_inter(1 / 255, 0)
    return write_nifti(image, Path(path))


def _with_header_of(like: Volume, array: np.ndarray) -> nibabel.Nifti1Image:
    if array.shape != like.shape:
        raise ValueError(
            f"{like.title}: expected an array of its shape {like.shape}, got {array.shape}"
        )
    template = None
    if like.source is not None and is_nifti_name(like.source.name) and not like.source.is_dir():
        template = open_volume(like.source)
        # a label that was reordered to its image no longer lies on the grid of its own file
        if squeezed_shape(template.shape) != like.shape or (template.affine != like.affine).any():
            template = None
    if template is None:
        image = nibabel.Nifti1Image(array, like.affine)
        # scanner coordinates; a qform cannot hold the shear of a tilted gantry, the sform can
        image.set_sform(like.affine, code=1)
        image.set_qform(like.affine, code=1)
        image.header.set_xyzt_units("mm")
        return image
    header = template.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the scan's display window would hide a mask
    header.extensions.clear()
    header["vox_offset"] = 0  # nibabel writes it anew, without room for the extensions
    return type(template)(array.reshape(template.shape), template.affine, header)
