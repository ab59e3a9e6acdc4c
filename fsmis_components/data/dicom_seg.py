"""DICOM SEG: the mask of a DICOM series as an object that refers to its slices."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fsmis_components
from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.dicom import series_slices
from fsmis_components.data.errors import DataError, needed, writing
from fsmis_components.data.volumes import Volume

_SCHEME = "99FSMIS"  # DICOM wants 99 before a coding scheme of one's own; names are not coded
# elements that a series must have (UIDs) for others to refer to it, and those that may be empty but
# not missing, as they are in series without names
_REFERRED = (
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("SOPClassUID", "SOPInstanceUID"),
)
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def highdicom() -> Any:
    """The library that writes DICOM SEG; a `DataError` where it is missing."""
    return needed(
        "highdicom",
        "dicom_seg: writing DICOM SEG needs highdicom; install it by 'pip install highdicom', or "
        "leave --dicom_seg out.",
    )


def save_dicom_seg(path: Path, label: np.ndarray, like: Volume, names: Mapping[int, str]) -> Path:
    """Write a label map as binary segments of the series that a volume was read from.

    Segments are numbered from 1 in the order of `names`; slices without a structure are left out.
    Patient, study and frame of reference are the series'. The same label of the same series gets
    the same UIDs.

    Args:
        path: file to write, whole or not at all.
        label: whole numbers (X, Y, Z) in the storage order of `like`.
        like: scan that was read from the folder of a DICOM series.
        names: what a segment is called, by its value in the label.

    Raises:
        DataError: highdicom is missing, the series lacks what a reference needs, or the file cannot
            be written.
    """
    hd, generate_uid = highdicom(), importlib.import_module("pydicom.uid").generate_uid
    if like.source is None:
        raise ValueError(f"{like.title}: expected a DICOM series")
    slices = series_slices(like.source)
    for each in slices:
        missing = [name for name in _REFERRED if not each.get(name)]
        if missing:
            raise DataError(
                f"{like.source}: its slices have no {missing[0]}, so no DICOM SEG can refer to "
                "them; export the series again, or leave --dicom_seg out."
            )
        for name in _MAY_BE_EMPTY:
            each.setdefault(name, None)
        each.SliceThickness = each.get("SliceThickness") or like.spacing[2]
    numbers = np.zeros(label.shape, np.uint8 if len(names) < 256 else np.uint16)
    for number, value in enumerate(names, start=1):
        numbers[label == value] = number
    voxels = hashlib.sha256(numbers.tobytes()).hexdigest()
    digest = [str(slices[0].SeriesInstanceUID), repr(dict(names)), voxels]
    segmentation = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=numbers.transpose(2, 1, 0),  # slices, rows, columns
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(hd, number, *named) for number, named in enumerate(names.items(), start=1)
        ],
        series_instance_uid=generate_uid(entropy_srcs=["series", *digest]),
        series_number=1,
        sop_instance_uid=generate_uid(entropy_srcs=["instance", *digest]),
        instance_number=1,
        manufacturer="fsmis_components",
        manufacturer_model_name="fsmis_components",
        software_versions=fsmis_components.__version__,
        device_serial_number="0",
        series_description="Few-shot segmentation, not for diagnosis",
    )
    with writing(path):
        return atomic_write(path, segmentation.save_as)


def _segment(hd: Any, number: int, value: int, name: str) -> Any:
    """What a segment is: a structure by its own name."""
    coded = hd.sr.CodedConcept
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],  # DICOM's longest text of this kind
        segmented_property_category=coded("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=coded(f"value_{value}", _SCHEME, name[:64]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="fsmis_components",
            family=coded("123109", "DCM", "Artificial Intelligence"),
            version=fsmis_components.__version__,
        ),
    )
