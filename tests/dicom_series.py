"""DICOM series for tests, written by pydicom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

AXIAL = (1, 0, 0, 0, 1, 0)


def write_dicom(
    folder: Path,
    pixels: np.ndarray,
    positions: tuple[float, ...],
    *,
    orientation: tuple[float, ...] = AXIAL,
    tilt: float = 0.0,
    slope: float = 1,
    intercept: float = -1024,
    spacing: tuple[float, float] = (2.0, 0.5),
    series: Mapping[str, object] = MappingProxyType({}),
    **changes: object,
) -> None:
    """Write int16 pixels (z, rows, columns), one file per slice.

    File names run against the positions. `spacing` is that between rows and between columns;
    `series` is set on all files, `changes` on the second file only, None removes the element.
    """
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    folder.mkdir(exist_ok=True, parents=True)
    normal = np.cross(orientation[:3], orientation[3:])
    for index, position in enumerate(positions):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        uid = f"1.2.3.{index + 1}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        data.SeriesInstanceUID = "1.2.3"
        data.Rows, data.Columns = pixels.shape[1:]
        data.SamplesPerPixel = 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelSpacing = list(spacing)
        data.ImageOrientationPatient = [float(value) for value in orientation]
        shifted = np.array([10.0, 20.0, 30.0]) + normal * position + [0, tilt * position, 0]
        data.ImagePositionPatient = [float(value) for value in shifted]
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = pixels[index].astype(np.int16).tobytes()
        for name, value in {**series, **(changes if index == 1 else {})}.items():
            if value is not None:
                setattr(data, name, value)
            elif name in data:
                delattr(data, name)
        data.save_as(folder / f"slice_{len(positions) - index}", enforce_file_format=True)
