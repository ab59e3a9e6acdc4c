"""DICOM series: the slices of a folder as one volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import is_nifti_name

_UNEVEN = 0.05  # share of the spacing by which slices may be off: rounded headers, not gaps
_SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
_CONVERT = "convert the series to NIfTI, for example by dcm2niix"


def is_dicom_series(folder: Path) -> bool:
    """Whether a folder directly holds DICOM files; looks at one file, without pydicom."""
    for path in folder.iterdir():
        # by name first: a NIfTI label must not be opened to find scans
        if is_nifti_name(path.name) or not _may_be_slice(path):
            continue
        return path.suffix.lower() == ".dcm" or _has_dicom_mark(path)
    return False


def load_dicom_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the slices of one series in the order of their positions.

    Args:
        folder: directly holds the files of one series, one file per slice.

    Returns:
        Voxels (columns, rows, slices) after rescale slope and intercept (CT: Hounsfield units),
        as int16 where they fit, else float32; and the affine (4, 4) from voxel
        index to millimetres right, anterior, superior.

    Raises:
        DataError: pydicom is missing, no or several series, unequal slices, uneven spacing, a
            compression that pydicom cannot read.
    """
    paths, headers = _read_headers(folder)
    positions = np.array([_numbers(h, "ImagePositionPatient", 3, folder) for h in headers])
    directions = np.array([_numbers(h, "ImageOrientationPatient", 6, folder) for h in headers])
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise DataError(f"{folder}: slices point in different directions; keep one stack of them.")
    along_row, along_column = directions[0, :3], directions[0, 3:]
    normal = np.cross(along_row, along_column)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    step = _slice_step(positions, normal, headers[0], folder)
    row_spacing, column_spacing = _numbers(headers[0], "PixelSpacing", 2, folder)
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns); the first index runs along a row
    affine[:3, 0] = along_row * column_spacing
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    affine[:2] *= -1.0  # DICOM counts towards left and posterior
    return _read_slices([paths[index] for index in order], headers[0], folder), affine


def _pydicom(folder: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            f"{folder}: reading DICOM needs pydicom; install it by 'pip install pydicom', or "
            f"{_CONVERT}."
        ) from error
    return pydicom


def _read_headers(folder: Path) -> tuple[list[Path], list[Any]]:
    """Files and headers, without pixels, of the images of the one series in a folder."""
    pydicom = _pydicom(folder)
    paths, headers = [], []
    for path in sorted(folder.iterdir()):
        if not _may_be_slice(path):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, EOFError):
            continue  # notes and previews lie beside the slices
        if "Rows" in header:
            paths.append(path)
            headers.append(header)
    if not headers:
        raise DataError(f"{folder}: no DICOM image in this folder; name the folder of a series.")
    series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
    if len(series) > 1:
        raise DataError(f"{folder}: holds {len(series)} DICOM series; put each in its own folder.")
    for header in headers:
        if int(header.get("NumberOfFrames") or 1) > 1 or header.get("SamplesPerPixel", 1) != 1:
            raise DataError(f"{folder}: expected one grey slice per DICOM file; {_CONVERT}.")
        if (header.Rows, header.Columns) != (headers[0].Rows, headers[0].Columns):
            raise DataError(f"{folder}: slices differ in size; keep one stack of equal slices.")
    return paths, headers


def _slice_step(positions: np.ndarray, normal: np.ndarray, header: Any, folder: Path) -> np.ndarray:
    """Millimetres (3,) from one slice to the next; keeps the shear of a tilted gantry."""
    if len(positions) == 1:
        thickness = float(header.get("SliceThickness", 0) or 0)
        return normal * (thickness if thickness > 0 else 1.0)
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if usual <= 0 or np.abs(gaps - usual).max() > _UNEVEN * usual:
        raise DataError(
            f"{folder}: the distance between slices is uneven ({gaps.min():.3g} to "
            f"{gaps.max():.3g} mm), so a slice is missing or twice there; complete the series "
            f"or resample it."
        )
    step: np.ndarray = (positions[-1] - positions[0]) / (len(positions) - 1)
    return step


def _read_slices(paths: list[Path], first: Any, folder: Path) -> np.ndarray:
    """Voxels (columns, rows, slices) of files in this order, as int16, int32 or float32."""
    pydicom = _pydicom(folder)
    voxels = np.empty((first.Columns, first.Rows, len(paths)), np.float32, order="F")
    whole = True
    for index, path in enumerate(paths):
        try:
            image = pydicom.dcmread(path)
            pixels = image.pixel_array  # (rows, columns)
        except Exception as error:  # pydicom's decoders raise whatever their libraries raise
            raise DataError(
                f"{path}: this slice cannot be decoded ({error}); {_CONVERT}."
            ) from error
        slope = float(image.get("RescaleSlope") or 1)
        intercept = float(image.get("RescaleIntercept") or 0)
        whole = whole and slope.is_integer() and intercept.is_integer()
        voxels[..., index] = pixels.T * slope + intercept
    # float32 holds whole numbers exactly up to 2 ** 24, far above any scanner's 16 bits
    limits = np.iinfo(np.int16)
    if whole and limits.min <= voxels.min() and voxels.max() <= limits.max:
        return voxels.astype(np.int16)
    return voxels


def _numbers(header: Any, name: str, count: int, folder: Path) -> np.ndarray:
    values = header.get(name)
    if values is None or len(values) != count:
        raise DataError(f"{folder}: a slice has no {name}, so its place is unknown; {_CONVERT}.")
    return np.array([float(value) for value in values])


def _may_be_slice(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "DICOMDIR" and path.is_file()


def _has_dicom_mark(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
