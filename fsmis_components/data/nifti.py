"""Files of volumes: opened with plain words for what is wrong, read where they are indexed."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import DataError, needed, unreadable, writing
from fsmis_components.data.volume_names import is_data_of, is_volume_name

MOST_VOXELS = 2**31  # a whole body at half a millimetre; as float32 8 GiB
_CONVERT = "convert it to .nii.gz"
_META_IMAGE = (".mha", ".mhd")
_HEADER_BYTES = 1 << 20
# where the voxels lie: MetaImage's ElementDataFile, NRRD's data file
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*[=:]|data ?file:)(.*)$", re.I | re.M)
_HEADER_END = re.compile(rb"\r?\n\r?\n")  # of NRRD
_CHUNK_VOXELS = 1 << 22  # voxels that a check looks at in one step: 16 MiB as float32
_SAMPLE_VOXELS = 1 << 20  # shares of so many are those of the whole


class StoredArray:
    """Integers on disk with a scale: `slope * raw + intercept`, computed for what is indexed.

    A scan of 1,000 slices stays at two bytes per voxel; a float copy of the whole is made only by
    `numpy.asarray`. The stored values may be a memory map.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, raw: np.ndarray, slope: float, intercept: float) -> None:
        self.raw, self.shape = raw, raw.shape
        self.slope, self.intercept = float(slope), float(intercept)

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


def is_nifti_name(name: str) -> bool:
    """Whether a file name ends in `.nii` or `.nii.gz`."""
    return name.lower().endswith((".nii.gz", ".nii"))


def read_voxels(
    image: nibabel.Nifti1Image, path: Path, most_voxels: int = MOST_VOXELS
) -> VoxelArray:
    """The voxels (X, Y, Z) in the stored type; a memory map where the file is not compressed.

    Damaged ones are a `DataError`, and what `checked_shape` refuses.
    """
    shape, data = checked_shape(image, path, most_voxels), image.dataobj
    slope, inter = 1.0, 0.0
    try:
        if isinstance(data, ArrayProxy):
            slope, inter, data = data.slope, data.inter, data.get_unscaled()
        raw = np.asanyarray(data).reshape(shape, order="F")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: the file ends early or is damaged ({error}); copy or export it again."
        ) from error
    return raw if (slope, inter) == (1.0, 0.0) else StoredArray(raw, slope, inter)


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
    _check_size(shape, path, most_voxels)
    kind = image.get_data_dtype()
    if kind.kind not in "biuf":
        raise DataError(
            f"{path}: expected one number per voxel, got {kind} (colour or complex); "
            "export it as a grey image."
        )
    return shape[0], shape[1], shape[2]


def _check_size(shape: Sequence[int], path: Path, most_voxels: int) -> None:
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
    """The affine (4, 4) as float64; one that maps the grid to a plane or less is a `DataError`."""
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


def is_identity(affine: npt.ArrayLike) -> bool:
    """Whether an affine is what tools write that know nothing: an identity, up to signs."""
    return np.allclose(np.abs(np.asarray(affine)), np.eye(4), atol=1e-6)


def write_nifti(
    image: nibabel.Nifti1Image, path: Path, ready: Callable[[Path], object] | None = None
) -> Path:
    """Write a file that appears only when it is complete; an existing one is replaced.

    `ready` is called with the complete file under its hidden name, before it gets its own. What
    cannot be written is a `DataError`; what was there before is untouched.
    """

    def write(unfinished: Path) -> None:
        nibabel.save(image, unfinished)
        if ready is not None:
            ready(unfinished)

    with writing(path):
        return atomic_write(path, write)


def open_volume(path: Path, most_voxels: int = MOST_VOXELS) -> nibabel.Nifti1Image:
    """Open a volume file: NIfTI and FreeSurfer's MGZ by nibabel, NRRD and MetaImage by SimpleITK.

    Returns its voxels and affine; qform and sform codes of 0 where the file does not say how it
    lies. A missing file, another format, a damaged one, several layers, or a missing SimpleITK are
    a `DataError`.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path.")
    if not is_volume_name(path.name):
        raise DataError(f"{path}: not a format that is read; {_CONVERT}, for example by dcm2niix.")
    try:
        # also because nibabel takes a file that it may not open for one of no kind
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if is_nifti_name(path.name):
        return _by_nibabel(path, nibabel.Nifti1Image, "NIfTI file")
    if path.suffix.lower() in (".mgz", ".mgh"):
        image = _by_nibabel(path, nibabel.MGHImage, "FreeSurfer volume")
        return _nifti(image.dataobj, image.affine, bool(image.header["goodRASFlag"]))
    return _by_simpleitk(path, header, most_voxels)


def _by_nibabel(path: Path, kind: type, name: str) -> Any:
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: not a {name}, or a damaged one ({error}); convert or export it again."
        ) from error
    if not isinstance(image, kind):
        raise DataError(f"{path}: not a {name} but a {type(image).__name__}; {_CONVERT}.")
    return image


def _by_simpleitk(path: Path, header: bytes, most_voxels: int) -> nibabel.Nifti1Image:
    if not _keeps_to_its_folder(header, path):
        raise DataError(
            f"{path}: takes its voxels from other places than a file of its name beside it, or its "
            f"header is damaged; {_CONVERT}."
        )
    sitk = needed(
        "SimpleITK",
        f"{path}: reading this format needs SimpleITK; install it by 'pip install SimpleITK', or "
        f"{_CONVERT}.",
    )
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        layers, axes = reader.GetNumberOfComponents(), reader.GetDimension()
        if layers > 1 or axes != 3:
            what = "segments overlap" if path.name.lower().endswith(".seg.nrrd") else "it has"
            raise DataError(
                f"{path}: expected one 3D volume with one number per voxel, got {axes} axes and "
                f"{layers} numbers per voxel ({what} several layers); save one per file."
            )
        _check_size(reader.GetSize(), path, most_voxels)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: damaged, or no such format ({reason}); {_CONVERT}.") from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1.0  # ITK counts towards left and posterior
    placed = path.suffix.lower() in _META_IMAGE or image.HasMetaDataKey("NRRD_space")
    return _nifti(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine, placed)


def _keeps_to_its_folder(header: bytes, path: Path) -> bool:
    """Whether the voxels lie in the file itself, or beside it in one of the same name.

    A file from elsewhere must not be able to name any file of this machine.
    """
    meta_image = path.suffix.lower() in _META_IMAGE
    if not meta_image:
        end = _HEADER_END.search(header)
        # the header of a detached NRRD may end with the file
        header = header[: end.start()] if end else header
        if not end and len(header) == _HEADER_BYTES:
            return False
    names = [name.decode(errors="replace").strip() for name in _DATA_FILE.findall(header)]
    if meta_image:  # what follows the first is voxels
        names = names[:1] or ["none"]
    return all(
        name.lower() in ("local", "")
        or (Path(name.replace("\\", "/")).name == name and is_data_of(Path(name), path))
        for name in names
    )


def _nifti(data: Any, affine: np.ndarray, placed: bool) -> nibabel.Nifti1Image:
    # nibabel refuses 64-bit integers without being told the type
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_qform(affine, code=int(placed))
    image.set_sform(affine, code=int(placed))
    return image
