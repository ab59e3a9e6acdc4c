"""One DICOM file: what its header says of a slice, its pixels, or a plain word on its damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsmis_components.data.errors import DataError, unreadable

CONVERT = "convert the series to NIfTI, for example by dcm2niix"
_COPY = "copy or export the series again, or move the file away"
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


@dataclass(frozen=True)
class SliceHeader:
    """What a series is put together from.

    Attributes:
        path: the file.
        series: SeriesInstanceUID, "" where there is none.
        size: rows and columns; None: the file holds no image (a report), or is cut off before it.
        grey: one grey slice, not a movie or a colour picture.
        position: ImagePositionPatient (3,); None where the header has none.
        direction: ImageOrientationPatient (6,), along a row, then along a column; None: none.
        spacing: PixelSpacing (2,), millimetres between rows and between columns; None: none.
        thickness: SliceThickness in millimetres, 0 where there is none.
        shared: what has to be the same in all slices of one stack, numbers or texts by the name of
            the element; elements that are not there, or empty, are left out.
    """

    path: Path
    series: str
    size: tuple[int, int] | None
    grey: bool
    position: np.ndarray | None
    direction: np.ndarray | None
    spacing: np.ndarray | None
    thickness: float
    shared: dict[str, np.ndarray | str]


def read_header(path: Path) -> SliceHeader | None:
    """The header of a file; None where it is no DICOM.

    Raises:
        DataError: pydicom is missing, a header that cannot be understood.
    """
    pydicom = _pydicom(path)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return _understood(header, path)
    except (pydicom.errors.InvalidDicomError, EOFError):
        return None
    except OSError as error:  # the disk's trouble, not the file's
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged header makes pydicom raise whatever comes
        raise DataError(f"{path}: this DICOM file is damaged ({error}); {_COPY}.") from error


def unlike(one: SliceHeader, other: SliceHeader) -> str | None:
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


def read_plane(path: Path) -> np.ndarray:
    """Pixels (columns, rows) after rescale slope and intercept, float64.

    Of MONOCHROME1, where the lowest value is white, the values are turned round first. Not of CT:
    Hounsfield units mean the same however they are shown.

    Raises:
        DataError: damaged, or a compression that pydicom cannot read.
    """
    pydicom = _pydicom(path)
    try:
        image = pydicom.dcmread(path)
        slope = float(image.get("RescaleSlope") or 1)
        intercept = float(image.get("RescaleIntercept") or 0)
        pixels = image.pixel_array.T.astype(np.float64)  # (rows, columns) turned
        if (
            image.get("PhotometricInterpretation") == "MONOCHROME1"
            and image.get("Modality") != "CT"
        ):
            pixels = (-1 if image.PixelRepresentation else 2**image.BitsStored - 1) - pixels
        plane = pixels * slope + intercept
    except Exception as error:  # pydicom's decoders raise whatever their libraries raise
        raise DataError(f"{path}: this slice cannot be decoded ({error}); {CONVERT}.") from error
    return np.asarray(plane, dtype=np.float64)


def damaged(path: Path) -> DataError:
    """The error about a file that should be a slice, as those beside it are."""
    return DataError(f"{path}: not readable as a slice, as the files beside it are; {_COPY}.")


def _understood(header: Any, path: Path) -> SliceHeader:
    size = (int(header.Rows), int(header.Columns)) if "Rows" in header else None
    frames = int(header.get("NumberOfFrames") or 1)
    return SliceHeader(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        size=size,
        grey=frames == 1 and int(header.get("SamplesPerPixel", 1)) == 1,
        position=_numbers(header, "ImagePositionPatient", 3),
        direction=_numbers(header, "ImageOrientationPatient", 6),
        spacing=_numbers(header, "PixelSpacing", 2),
        thickness=float(header.get("SliceThickness") or 0),
        shared={
            name: _comparable(header.get(name))
            for name in _ALIKE
            if header.get(name) not in (None, "")
        },
    )


def _comparable(value: Any) -> np.ndarray | str:
    """An element's numbers, or its text where it has none."""
    values = [value] if np.ndim(value) == 0 else list(value)
    try:
        return np.array([float(each) for each in values])
    except ValueError:
        return "\\".join(map(str, values))


def _numbers(header: Any, name: str, count: int) -> np.ndarray | None:
    values = header.get(name)
    if values is None or np.size(values) != count:
        return None
    return np.array([float(value) for value in values])


def _pydicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            f"{path.parent}: reading DICOM needs pydicom; install it by 'pip install pydicom', or "
            f"{CONVERT}."
        ) from error
    return pydicom
