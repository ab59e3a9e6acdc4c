"""NIfTI files: opened with plain words for what is wrong, written whole or not at all."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import DataError, unreadable, writing
from fsmis_components.data.stored_array import StoredArray, VoxelArray
from fsmis_components.data.volume_names import strip_suffix

MOST_VOXELS = 2**31  # a whole body at half a millimetre; as float32 8 GiB
NIFTI_SUFFIXES = (".nii.gz", ".nii")


def is_nifti_name(name: str) -> bool:
    """Whether a file name ends in `.nii` or `.nii.gz`."""
    return name.lower().endswith(NIFTI_SUFFIXES)


def strip_nifti_suffix(name: str) -> str:
    """File name without `.nii` or `.nii.gz`."""
    return strip_suffix(name, NIFTI_SUFFIXES)


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """Read the header (NIfTI-1 or NIfTI-2).

    Raises:
        DataError: no such file, not a NIfTI, a damaged header.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path.")
    if not is_nifti_name(path.name):
        raise DataError(
            f"{path}: not a format that is read; convert it to .nii.gz, for example by dcm2niix."
        )
    try:
        path.open("rb").close()  # nibabel takes a file that it may not open for one of no kind
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: not a NIfTI file, or a damaged one ({error}); convert or export it again."
        ) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(f"{path}: not a NIfTI but a {type(image).__name__}; convert it to .nii.gz.")
    return image


def read_voxels(
    image: nibabel.Nifti1Image, path: Path, most_voxels: int = MOST_VOXELS
) -> VoxelArray:
    """The voxels (X, Y, Z) in the stored type; a memory map where the file is not compressed.

    Args:
        image: from `open_nifti`.
        path: the file, for messages.
        most_voxels: of a scan that is not refused.

    Raises:
        DataError: damaged; otherwise as `checked_shape`.
    """
    proxy = image.dataobj
    slope, inter = (proxy.slope, proxy.inter) if isinstance(proxy, ArrayProxy) else (1.0, 0.0)
    shape = checked_shape(image, path, most_voxels)
    try:
        raw = np.asanyarray(proxy.get_unscaled() if isinstance(proxy, ArrayProxy) else proxy)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: the file ends early or is damaged ({error}); copy or export it again."
        ) from error
    raw = raw.reshape(shape, order="F")
    if (slope, inter) == (1.0, 0.0):
        return raw
    return StoredArray(raw, slope, inter)


def checked_shape(
    image: nibabel.Nifti1Image, path: Path, most_voxels: int = MOST_VOXELS
) -> tuple[int, int, int]:
    """The shape (X, Y, Z) that a header states; no voxel is read.

    Raises:
        DataError: not one 3D volume, empty, larger than `most_voxels`, colour or complex.
    """
    shape = squeezed_shape(image.shape)
    if len(shape) != 3 or 0 in shape:
        raise DataError(
            f"{path}: expected one 3D volume with at least one voxel, got shape {shape}; "
            "save one time point or channel per file."
        )
    check_size(shape, path, most_voxels)
    kind = image.get_data_dtype()
    if kind.kind not in "biuf":
        raise DataError(
            f"{path}: expected one number per voxel, got {kind} (colour or complex); "
            "export it as a grey image."
        )
    return shape[0], shape[1], shape[2]


def check_size(shape: Sequence[int], path: Path, most_voxels: int = MOST_VOXELS) -> None:
    """Refuse a scan of more voxels than can be read; errors as `checked_shape`."""
    if math.prod(shape) > most_voxels:
        raise DataError(
            f"{path}: the header states {' x '.join(map(str, shape))} voxels, more than "
            f"{most_voxels:,} are not read; crop the scan, or export it again if that is wrong."
        )


def squeezed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1 behind the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def checked_affine(affine: np.ndarray | None, path: Path) -> np.ndarray:
    """The affine (4, 4) as float64.

    Raises:
        DataError: it maps the grid to a plane, a line or nowhere.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    axes = matrix[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    singular = not np.isfinite(matrix).all() or lengths.min() == 0
    # directions instead of axes, so that a grid in micrometres passes
    if singular or abs(np.linalg.det(axes / lengths)) < 1e-4:
        raise DataError(
            f"{path}: the affine is singular (spacing {', '.join(f'{s:.4g}' for s in lengths)}), "
            "so the voxels have no place in space; repair sform or qform of the header."
        )
    return matrix


def is_coded(image: nibabel.Nifti1Image) -> bool:
    """Whether qform or sform are coded; else readers agree on no orientation."""
    return bool(image.header["qform_code"] > 0 or image.header["sform_code"] > 0)


def has_position(image: nibabel.Nifti1Image) -> bool:
    """Whether the header says where the voxels lie."""
    return is_coded(image) and not is_identity(image.affine)


def is_identity(affine: npt.ArrayLike) -> bool:
    """Whether an affine is what tools write that know nothing: an identity, up to signs."""
    return np.allclose(np.abs(np.asarray(affine)), np.eye(4), atol=1e-6)


def write_nifti(
    image: nibabel.Nifti1Image, path: Path, ready: Callable[[Path], object] | None = None
) -> Path:
    """Write a file that appears only when it is complete; an existing one is replaced.

    Args:
        image: header and voxels.
        path: the file.
        ready: called with the complete file under its hidden name, before it gets its own.

    Raises:
        DataError: it cannot be written; what was there before is untouched.
    """
    if not is_nifti_name(path.name):
        raise ValueError(f"{path}: expected a name that ends in .nii.gz or .nii")

    def write(unfinished: Path) -> None:
        nibabel.save(image, unfinished)
        if ready is not None:
            ready(unfinished)

    with writing(path):
        return atomic_write(path, write)
