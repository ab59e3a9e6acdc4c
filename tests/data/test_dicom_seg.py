from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_dicom

from fsmis_components.data.dicom_seg import save_dicom_seg
from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image

NAMES = {3: "left kidney", 7: "liver", 9: "spleen"}
STUDY = {"StudyInstanceUID": "1.2.8", "FrameOfReferenceUID": "1.2.9", "Modality": "CT"}
STUDY |= {"PatientID": "p1"}
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An oblique series of five slices, its files in the opposite order."""
    pixels = np.zeros((5, 6, 8), np.int16)
    positions = (0.0, 3.0, 6.0, 9.0, 12.0)
    write_dicom(tmp_path / "series", pixels, positions, orientation=OBLIQUE, series=STUDY)
    return tmp_path / "series"


def test_what_is_read_back_is_the_label_where_it_was(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    import pydicom  # the reader is another library than the writer

    image = load_image(series)
    label = np.random.default_rng(1).choice([0, 3, 7], size=image.shape)
    label[..., 2] = 0
    path = save_dicom_seg(tmp_path / "seg.dcm", label, image, NAMES)
    found = pydicom.dcmread(path)
    assert found.SOPClassUID.name == "Segmentation Storage" and found.PatientID == "p1"
    assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == ("1.2.8", "1.2.9")
    assert found.SeriesInstanceUID != "1.2.3"
    segments = {each.SegmentNumber: each.SegmentLabel for each in found.SegmentSequence}
    assert segments == dict(enumerate(NAMES.values(), start=1))
    [referred] = found.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == "1.2.3"

    shared = found.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows_apart, columns_apart = shared.PixelMeasuresSequence[0].PixelSpacing
    again = np.zeros_like(label)
    sources = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, series.iterdir())}
    to_voxel = np.linalg.inv(image.affine)
    row, column = np.mgrid[: found.Rows, : found.Columns]
    for frame, group in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source = sources[source.ReferencedSOPInstanceUID]
        np.testing.assert_allclose(corner, source.ImagePositionPatient)
        # DICOM's own formula, towards left and posterior
        place = corner + (
            column[..., None] * along[:3] * columns_apart + row[..., None] * along[3:] * rows_apart
        )
        voxels = place * [-1, -1, 1] @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        x, y, z = np.rint(voxels).astype(int)[frame > 0].T
        again[x, y, z] = list(NAMES)[number - 1]
    np.testing.assert_array_equal(again, label)
    assert len(found.pixel_array) == 8  # neither the empty slice nor the absent structure

    same = pydicom.dcmread(save_dicom_seg(tmp_path / "again.dcm", label, image, NAMES))
    other = pydicom.dcmread(save_dicom_seg(tmp_path / "empty.dcm", label * 0, image, NAMES))
    assert same.SOPInstanceUID == found.SOPInstanceUID != other.SOPInstanceUID
    assert not other.pixel_array.any() and len(other.SegmentSequence) == 3


def test_a_series_that_cannot_be_referred_to_is_told(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    write_dicom(tmp_path / "plain", np.zeros((2, 6, 8), np.int16), (0.0, 3.0))
    image = load_image(tmp_path / "plain")
    with pytest.raises(DataError, match="plain: its slices have no StudyInstanceUID, so no DICOM"):
        save_dicom_seg(tmp_path / "seg.dcm", np.zeros(image.shape, int), image, NAMES)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_missing_library_is_told(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    image = load_image(series)
    with pytest.raises(DataError, match="needs highdicom; install it by 'pip install highdicom'"):
        save_dicom_seg(tmp_path / "seg.dcm", np.zeros(image.shape, int), image, NAMES)
