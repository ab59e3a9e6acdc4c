"""DICOM series: the slices of a folder as one volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsmis_components.data.errors import DataError, needed, unreadable

_CONVERT = "convert the series to NIfTI, for example by dcm2niix"
_COPY = "copy or export the series again, or move the file away"
# numbers that say where a slice lies: its first pixel; the directions along a row and along a
# column; millimetres between rows and between columns
_PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
# what all slices of one stack share
_ALIKE = (
    *("Modality", "ImageType", "PhotometricInterpretation", "PixelSpacing", "EchoTime"),
    *("EchoNumbers", "RepetitionTime", "InversionTime", "FlipAngle", "DiffusionBValue"),
    *("TemporalPositionIdentifier", "ConvolutionKernel", "KVP"),
)
# the share by which numbers of it may differ: pixel spacings are rounded, and repetition times of a
# triggered scan have some spread
_TOLERANCE = {"PixelSpacing": 1e-3, "RepetitionTime": 0.1, "EchoTime": 0.01, "InversionTime": 0.01}
_TOLERANCE |= {"FlipAngle": 0.01, "KVP": 0.01}
_UNEVEN = 0.05  # share of the spacing by which slices may be off: rounded headers, not gaps
_SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
_MOST_ASIDE = 0.5  # pixels by which a slice may lie beside the line through the others
_MOST_SHEAR = 1.0  # millimetres aside per millimetre along the normal: a gantry at 45 degrees


class _Slice(NamedTuple):
    """A file of a series."""

    path: Path
    header: Any  # a pydicom dataset without pixels
    # rows and columns; None: the file holds no image (a report), or is cut off before it
    size: tuple[int, int] | None
    place: dict[str, list[float]]  # those of the elements of `_PLACE` that the header has


def _read_header(path: Path) -> _Slice | None:
    """The header of a file; None where it is no DICOM; a damaged one is a `DataError`."""
    pydicom = _pydicom(path)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        size = (int(header.Rows), int(header.Columns)) if "Rows" in header else None
        used = {name: header.get(name) for name in (*_ALIKE, *_PLACE)}  # where they are converted
        place = {
            name: [float(value) for value in used[name]]
            for name, count in _PLACE.items()
            if np.size(used[name]) == count
        }
        return _Slice(path, header, size, place)
    except (pydicom.errors.InvalidDicomError, EOFError):
        return None
    except OSError as error:  # the disk's trouble, not the file's
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged header makes pydicom raise whatever comes
        raise DataError(f"{path}: this DICOM file is damaged ({error}); {_COPY}.") from error


def _check_alike(one: _Slice, other: _Slice, folder: Path) -> None:
    """Refuse two slices that cannot be of one stack."""
    for name in _ALIKE:
        left, right = one.header.get(name), other.header.get(name)
        if "" in (left, right) or None in (left, right):
            continue
        try:
            numbers = np.asarray(left, float), np.asarray(right, float)
            same = np.allclose(*numbers, rtol=_TOLERANCE.get(name, 0), atol=0)
        except ValueError:  # texts, or another number of values
            same = left == right
        if not same:
            raise DataError(
                f"{folder}: slices of one series differ in {name} ({left} and {right}), so they "
                "are not of one stack; put each stack in its own folder."
            )


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
    slices, along_row, along_column, order = _ordered(folder)
    positions = _places(slices, "ImagePositionPatient", folder)[order]
    normal = np.cross(along_row, along_column)
    row_spacing, column_spacing = _places(slices[:1], "PixelSpacing", folder)[0]
    if len(slices) > 1:
        step = _slice_step(positions, normal, min(row_spacing, column_spacing), folder)
    else:
        thickness = float(slices[0].header.get("SliceThickness") or 0)
        step = normal * (thickness if thickness > 0 else 1.0)
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns); the first index runs along a row
    affine[:3, 0] = along_row * column_spacing
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    affine[:2] *= -1.0  # DICOM counts towards left and posterior
    return _read_slices([slices[index] for index in order]), affine


def series_slices(folder: Path) -> list[Any]:
    """The slices of a series as pydicom datasets without pixels, in the order of the voxels.

    Errors as `load_dicom_series`.
    """
    slices, *_, order = _ordered(folder)
    return [slices[index].header for index in order]


def _ordered(folder: Path) -> tuple[list[_Slice], np.ndarray, np.ndarray, np.ndarray]:
    """The images of the one series in a folder, its row and column directions, and their order."""
    slices = _read_headers(folder)
    positions = _places(slices, "ImagePositionPatient", folder)
    directions = _places(slices, "ImageOrientationPatient", folder)
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise DataError(f"{folder}: slices point in different directions; keep one stack of them.")
    along_row, along_column = directions[0, :3], directions[0, 3:]
    order = np.argsort(positions @ np.cross(along_row, along_column), kind="stable")
    return slices, along_row, along_column, order


def _read_headers(folder: Path) -> list[_Slice]:
    """The headers of the images of the one series in a folder."""
    files = {path: _read_header(path) for path in sorted(folder.iterdir()) if _may_be_slice(path)}
    slices = [each for each in files.values() if each is not None and each.size]
    if not slices:
        raise DataError(f"{folder}: no DICOM image in this folder; name the folder of a series.")
    series = {each.header.get("SeriesInstanceUID", "") for each in slices}
    if len(series) > 1:
        raise DataError(f"{folder}: holds {len(series)} DICOM series; put each in its own folder.")
    # notes, previews and reports may lie beside the slices; but a damaged first or last slice
    # leaves no gap, so that the scan would be shorter in silence
    endings = {each.path.suffix.lower() for each in slices}
    for path, each in files.items():
        if each is None:
            damaged = path.suffix.lower() in endings
        else:
            damaged = not each.size and each.header.get("SeriesInstanceUID", "") in ("", *series)
        if damaged:
            raise _damaged(path)
    first = slices[0]
    for each in slices:
        frames, samples = (each.header.get(n) or 1 for n in ("NumberOfFrames", "SamplesPerPixel"))
        if (int(frames), int(samples)) != (1, 1):
            raise DataError(f"{folder}: expected one grey slice per DICOM file; {_CONVERT}.")
        if each.size != first.size:
            raise DataError(f"{folder}: slices differ in size; keep one stack of equal slices.")
        _check_alike(first, each, folder)
    return slices


def _slice_step(
    positions: np.ndarray, normal: np.ndarray, pixel: float, folder: Path
) -> np.ndarray:
    """Millimetres (3,) from one slice to the next, a tilted gantry's shear kept, if in line."""
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if usual <= 0 or np.abs(gaps - usual).max() > _UNEVEN * usual:
        raise DataError(
            f"{folder}: the distance between slices is uneven ({gaps.min():.3g} to "
            f"{gaps.max():.3g} mm), so a slice is missing or twice there; complete the series "
            f"or resample it."
        )
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
    step: np.ndarray = (positions[-1] - positions[0]) / (len(positions) - 1)
    return step


def _read_slices(slices: list[_Slice]) -> np.ndarray:
    """Voxels (columns, rows, slices) of files in this order, as int16 or float32.

    The volume becomes float only at the first slice that needs it: the 1,000 slices of a CT stay
    at two bytes per voxel.
    """
    rows, columns = slices[0].size or (0, 0)
    voxels = np.empty((columns, rows, len(slices)), np.int16, order="F")
    for index, each in enumerate(slices):
        plane = _read_plane(each.path)
        if plane.shape != voxels.shape[:2] or not np.isfinite(plane).all():
            raise _damaged(each.path)
        if (plane != np.rint(plane.clip(-(1 << 15), (1 << 15) - 1))).any():
            voxels = voxels.astype(np.float32, copy=False)
        voxels[..., index] = plane
    return voxels


def _places(slices: list[_Slice], name: str, folder: Path) -> np.ndarray:
    """An element of `_PLACE` of all slices, one a row."""
    if not all(name in each.place for each in slices):
        raise DataError(f"{folder}: a slice has no {name}, so its place is unknown; {_CONVERT}.")
    return np.array([each.place[name] for each in slices])


def _may_be_slice(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "DICOMDIR" and path.is_file()
