"""Volume files of other formats than NIfTI, opened as NIfTI images in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from fsmis_components.data.errors import DataError, unreadable
from fsmis_components.data.nifti import MOST_VOXELS, check_size, is_nifti_name, open_nifti
from fsmis_components.data.volume_names import is_data_of, is_volume_name

_CONVERT = "convert it to .nii.gz"
_META_IMAGE = (".mha", ".mhd")
_HEADER_BYTES = 1 << 20
# where the voxels lie: MetaImage's ElementDataFile, NRRD's data file
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*[=:]|data ?file:)(.*)$", re.I | re.M)
_OWN_DATA = ("local", "")
_HEADER_END = re.compile(rb"\r?\n\r?\n")  # of NRRD


def open_volume(path: Path, most_voxels: int = MOST_VOXELS) -> nibabel.Nifti1Image:
    """Open a volume file of a format that is read.

    Args:
        path: NIfTI and FreeSurfer's MGZ are read by nibabel, NRRD and MetaImage by SimpleITK.
        most_voxels: of a scan that is not refused, where all voxels are read at once.

    Returns:
        Its voxels and affine; qform and sform codes of 0 where the file does not say how it lies.

    Raises:
        DataError: no such file, another format, damaged, SimpleITK is missing, several layers.
    """
    if not path.exists() or is_nifti_name(path.name) or not is_volume_name(path.name):
        return open_nifti(path)
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if path.suffix.lower() in (".mgz", ".mgh"):
        return _freesurfer(path)
    return _by_simpleitk(path, header, most_voxels)


def _freesurfer(path: Path) -> nibabel.Nifti1Image:
    try:
        image = nibabel.load(path)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not a FreeSurfer volume, or a damaged one ({error}).") from error
    if not isinstance(image, nibabel.MGHImage):
        raise DataError(f"{path}: not a FreeSurfer volume; {_CONVERT}.")
    placed = bool(image.header["goodRASFlag"])
    return _nifti(image.dataobj, image.affine, placed)


def _by_simpleitk(path: Path, header: bytes, most_voxels: int) -> nibabel.Nifti1Image:
    if not _keeps_to_its_folder(header, path):
        raise DataError(
            f"{path}: takes its voxels from other places than a file of its name beside it, or its "
            f"header is damaged; {_CONVERT}."
        )
    sitk = _simpleitk(path)
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
        check_size(reader.GetSize(), path, most_voxels)
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
    if meta_image and not names:
        return False
    return all(
        name.lower() in _OWN_DATA
        or (Path(name.replace("\\", "/")).name == name and is_data_of(Path(name), path))
        for name in (names[:1] if meta_image else names)
    )


def _nifti(data: Any, affine: np.ndarray, placed: bool) -> nibabel.Nifti1Image:
    # nibabel refuses 64-bit integers without being told the type
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    for code in (image.set_qform, image.set_sform):
        code(affine, code=int(placed))
    return image


def _simpleitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise DataError(
            f"{path}: reading this format needs SimpleITK; install it by 'pip install SimpleITK', "
            f"or {_CONVERT}."
        ) from error
    return SimpleITK
