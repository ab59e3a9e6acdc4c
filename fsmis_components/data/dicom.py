"""DICOM series: the slices of a folder as one volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsmis_components.data.errors import DataError, needed, unreadable

_CONVERT = "convert the series to NIfTI, for example by dcm2niix"
_COPY = "copy or export the series again, or move the file away"
# numbers that say where a slice lies: its first pixel; the directions along a row and along a
# column; millimetres between rows and between columns
_PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
# what all slices of one stack share, and the share by which numbers may differ: of repetition times
# a triggered scan has some spread, and pixel spacings are rounded
_ALIKE = {
    "Modality": 0.0,
    "ImageType": 0.0,
    "PhotometricInterpretation": 0.0,
    "PixelSpacing": 1e-3,
    "EchoTime": 0.01,
    "EchoNumbers": 0.0,
    "RepetitionTime": 0.1,
    "InversionTime": 0.01,
    "FlipAngle": 0.01,
    "DiffusionBValue": 0.0,
    "TemporalPositionIdentifier": 0.0,
    "ConvolutionKernel": 0.0,
    "KVP": 0.01,
}
_UNEVEN = 0.05  # share of the spacing by which slices may be off: rounded headers, not gaps
_SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
_MOST_ASIDE = 0.5  # pixels by which a slice may lie beside the line through the others
_MOST_SHEAR = 1.0  # millimetres aside per millimetre along the normal: a gantry at 45 degrees


@dataclass(frozen=True)
class _SliceHeader:
    """What a series is put together from."""

    path: Path  # the file
    series: str  # SeriesInstanceUID, "" where there is none
    # rows and columns; None: the file holds no image (a report), or is cut off before it
    size: tuple[int, int] | None
    grey: bool  # one grey slice, not a movie or a colour picture
    place: dict[str, np.ndarray]  # those of the elements of `_PLACE` that the header has
    thickness: float  # SliceThickness in millimetres, 0 where there is none
    # what has to be the same in all slices of one stack, numbers or texts by the name of the
    # element; elements that are not there, or empty, are left out
    shared: dict[str, np.ndarray | str]


def _read_header(path: Path) -> _SliceHeader | None:
    """The header of a file; None where it is no DICOM; a damaged one is a `DataError`."""
    pydicom = _pydicom(path)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        frames = int(header.get("NumberOfFrames") or 1)
        return _SliceHeader(
            path=path,
            series=str(header.get("SeriesInstanceUID", "")),
            size=(int(header.Rows), int(header.Columns)) if "Rows" in header else None,
            grey=frames == 1 and int(header.get("SamplesPerPixel", 1)) == 1,
            place={
                name: np.array([float(value) for value in header.get(name)])
                for name, count in _PLACE.items()
                if name in header and np.size(header.get(name)) == count
            },
            thickness=float(header.get("SliceThickness") or 0),
            shared={
                name: _comparable(header.get(name))
                for name in _ALIKE
                if header.get(name) not in (None, "")
            },
        )
    except (pydicom.errors.InvalidDicomError, EOFError):
        return None
    except OSError as error:  # the disk's trouble, not the file's
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged header makes pydicom raise whatever comes
        raise DataError(f"{path}: this DICOM file is damaged ({error}); {_COPY}.") from error


def _unlike(one: _SliceHeader, other: _SliceHeader) -> str | None:
    """The first element by which two slices cannot be of one stack; None: they can."""
    for name, tolerance in _ALIKE.items():
        if name in one.shared and name in other.shared:
            left, right = one.shared[name], other.shared[name]
            if isinstance(left, str) or isinstance(right, str) or left.shape != right.shape:
                same = str(left) == str(right)
            else:
                same = np.allclose(left, right, rtol=tolerance, atol=0)
            if not same:
                return name
    return None


def _read_plane(path: Path) -> np.ndarray:
    """Pixels (columns, rows) after rescale slope and intercept, float64.

    Of MONOCHROME1, where the lowest value is white, the values are turned round first. Not of CT:
    Hounsfield units mean the same however they are shown. What cannot be decoded is a `DataError`.
    """
    pydicom = _pydicom(path)
    try:
        image = pydicom.dcmread(path)
        slope = float(image.get("RescaleSlope") or 1)
        intercept = float(image.get("RescaleIntercept") or 0)
        pixels = image.pixel_array.T.astype(np.float64)  # (rows, columns) turned
        white = image.get("PhotometricInterpretation") == "MONOCHROME1"
        if white and image.get("Modality") != "CT":
            pixels = (-1 if image.PixelRepresentation else 2**image.BitsStored - 1) - pixels
        return np.asarray(pixels * slope + intercept)
    except Exception as error:  # pydicom's decoders raise whatever their libraries raise
        raise DataError(f"{path}: this slice cannot be decoded ({error}); {_CONVERT}.") from error


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: not readable as a slice, as the files beside it are; {_COPY}.")


def _comparable(value: Any) -> np.ndarray | str:
    """An element's numbers, or its text where it has none."""
    values = [value] if np.ndim(value) == 0 else list(value)
    try:
        return np.array([float(each) for each in values])
    except ValueError:
        return "\\".join(map(str, values))


def _pydicom(path: Path) -> Any:
    return needed(
        "pydicom",
        f"{path.parent}: reading DICOM needs pydicom; install it by 'pip install pydicom', or "
        f"{_CONVERT}.",
    )


def is_dicom_file(path: Path) -> bool:
    """Whether a file is a DICOM file by its ending or by the mark in its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    if not _may_be_slice(path):
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def load_dicom_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the slices of one series in the order of their positions.

    The folder directly holds the files of the series, one per slice. Returns voxels (columns, rows,
    slices) after rescale slope and intercept (CT: Hounsfield units), as int16 where they fit, else
    float32; and the affine (4, 4) from voxel index to millimetres right, anterior, superior.

    A `DataError`: pydicom is missing, no or several series, a damaged file, slices that are not of
    one stack (another size, place in plane, contrast, time), uneven spacing, a compression that
    pydicom cannot read.
    """
    headers, along_row, along_column, order = _ordered(folder)
    normal = np.cross(along_row, along_column)
    positions = _places(headers, "ImagePositionPatient", folder)[order]
    step = _slice_step(positions, normal, headers[0].thickness, folder)
    row_spacing, column_spacing = _places(headers[:1], "PixelSpacing", folder)[0]
    _check_in_line(positions, normal, min(row_spacing, column_spacing), folder)
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns); the first index runs along a row
    affine[:3, 0] = along_row * column_spacing
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    affine[:2] *= -1.0  # DICOM counts towards left and posterior
    return _read_slices([headers[index] for index in order]), affine


def series_slices(folder: Path) -> list[Any]:
    """The slices of a series as pydicom datasets without pixels, in the order of the voxels.

    Errors as `load_dicom_series`.
    """
    pydicom = _pydicom(folder)
    headers, *_, order = _ordered(folder)
    return [pydicom.dcmread(headers[index].path, stop_before_pixels=True) for index in order]


def _ordered(folder: Path) -> tuple[list[_SliceHeader], np.ndarray, np.ndarray, np.ndarray]:
    """The headers of the one series in a folder, its row and column directions, and their order."""
    headers = _read_headers(folder)
    positions = _places(headers, "ImagePositionPatient", folder)
    directions = _places(headers, "ImageOrientationPatient", folder)
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise DataError(f"{folder}: slices point in different directions; keep one stack of them.")
    along_row, along_column = directions[0, :3], directions[0, 3:]
    order = np.argsort(positions @ np.cross(along_row, along_column), kind="stable")
    return headers, along_row, along_column, order


def _read_headers(folder: Path) -> list[_SliceHeader]:
    """The headers of the images of the one series in a folder."""
    files = {path: _read_header(path) for path in sorted(folder.iterdir()) if _may_be_slice(path)}
    headers = [header for header in files.values() if header is not None and header.size]
    if not headers:
        raise DataError(f"{folder}: no DICOM image in this folder; name the folder of a series.")
    series = {header.series for header in headers}
    if len(series) > 1:
        raise DataError(f"{folder}: holds {len(series)} DICOM series; put each in its own folder.")
    # notes, previews and reports may lie beside the slices; but a damaged first or last slice
    # leaves no gap, so that the scan would be shorter in silence
    endings = {header.path.suffix.lower() for header in headers}
    for path, header in files.items():
        if header is None and path.suffix.lower() in endings:
            raise _damaged(path)
        if header is not None and header.size is None and header.series in ("", *series):
            raise _damaged(path)
    for header in headers:
        if not header.grey:
            raise DataError(f"{folder}: expected one grey slice per DICOM file; {_CONVERT}.")
        if header.size != headers[0].size:
            raise DataError(f"{folder}: slices differ in size; keep one stack of equal slices.")
        if name := _unlike(headers[0], header):
            values = " and ".join(_shown(each.shared[name]) for each in (headers[0], header))
            raise DataError(
                f"{folder}: slices of one series differ in {name} ({values}), so they are not of "
                "one stack; put each stack in its own folder."
            )
    return headers


def _slice_step(
    positions: np.ndarray, normal: np.ndarray, thickness: float, folder: Path
) -> np.ndarray:
    """Millimetres (3,) from one slice to the next; keeps the shear of a tilted gantry."""
    if len(positions) == 1:
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


def _check_in_line(positions: np.ndarray, normal: np.ndarray, pixel: float, folder: Path) -> None:
    """Refuse slices that lie beside the line through all; a tilted gantry only slants the line."""
    if len(positions) == 1:
        return
    heights = positions @ normal
    beside = positions - heights[:, None] * normal
    fit = np.polyfit(heights, beside, 1)  # (2, 3): slant and origin
    aside = float(np.linalg.norm(beside - heights[:, None] * fit[0] - fit[1], axis=1).max())
    slant = float(np.linalg.norm(fit[0]))
    if aside > _MOST_ASIDE * pixel or slant > _MOST_SHEAR:
        far = aside if aside > _MOST_ASIDE * pixel else slant * float(np.ptp(heights))
        raise DataError(
            f"{folder}: slices are shifted sideways against each other (ImagePositionPatient, by "
            f"{far:.3g} mm), so they are not of one stack; put each stack in its own folder."
        )


def _shown(value: np.ndarray | str) -> str:
    return value if isinstance(value, str) else ", ".join(f"{number:g}" for number in value)


def _read_slices(headers: list[_SliceHeader]) -> np.ndarray:
    """Voxels (columns, rows, slices) of files in this order, as int16 or float32.

    The volume becomes float only at the first slice that needs it: the 1,000 slices of a CT stay
    at two bytes per voxel.
    """
    rows, columns = headers[0].size or (0, 0)
    voxels = np.empty((columns, rows, len(headers)), np.int16, order="F")
    for index, header in enumerate(headers):
        plane = _read_plane(header.path)
        if plane.shape != voxels.shape[:2] or not np.isfinite(plane).all():
            raise _damaged(header.path)
        if (plane != np.rint(plane.clip(-(1 << 15), (1 << 15) - 1))).any():
            voxels = voxels.astype(np.float32, copy=False)
        voxels[..., index] = plane
    return voxels


def _places(headers: list[_SliceHeader], name: str, folder: Path) -> np.ndarray:
    """An element of `_PLACE` of all slices, one a row."""
    if not all(name in header.place for header in headers):
        raise DataError(f"{folder}: a slice has no {name}, so its place is unknown; {_CONVERT}.")
    return np.array([header.place[name] for header in headers])


def _may_be_slice(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "DICOMDIR" and path.is_file()
