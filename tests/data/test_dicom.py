from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_dicom

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import load_image, load_label, save_mask

ROWS, COLUMNS = 6, 5
MR_HEADER = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "EchoTime": 4.6,
    "RepetitionTime": 500,
    "TemporalPositionIdentifier": 1,
}


def write_series(folder: Path, positions=(0.0, 4.0, 8.0, 12.0), **settings) -> np.ndarray:
    """Write slices of noise and return what is stored (z, rows, columns)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 3000, (len(positions), ROWS, COLUMNS)).astype(np.int16)
    write_dicom(folder, pixels, positions, **settings)
    return pixels


def test_values_and_places(tmp_path):
    pixels = write_series(tmp_path / "series")
    (tmp_path / "series" / "notes.txt").write_text("no slice")
    volume = load_image(tmp_path / "series")
    np.testing.assert_array_equal(volume.data, pixels.transpose(2, 1, 0) - 1024)
    assert volume.data.dtype == np.int16
    # DICOM counts to the left and to posterior; 0.5 mm between columns, 2 mm between rows
    expected = [[-0.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)
    assert find_cases(tmp_path)[0].image == tmp_path / "series"


def test_slices_in_space_whatever_the_series_direction(tmp_path):
    sagittal = (0, 1, 0, 0, 0, -1)
    pixels = write_series(tmp_path / "series", orientation=sagittal)
    volume = load_image(tmp_path / "series")
    view = SliceView(volume, SliceGrid(0, None, 8))
    # the normal of this orientation points to the patient's right
    stack = view.native_labels()
    assert stack.shape == (4, COLUMNS, ROWS)
    np.testing.assert_array_equal(stack, pixels.transpose(0, 2, 1)[:, ::-1, ::-1] - 1024)


def test_mask_of_a_series(tmp_path):
    pixels = write_series(tmp_path / "series", tilt=0.1)
    image = load_image(tmp_path / "series")
    np.testing.assert_allclose(image.affine[:3, 2], [0, -0.4, 4])  # a tilted gantry's shear
    mask = (pixels.transpose(2, 1, 0) > 1500).astype(np.int64)
    saved = load_label(save_mask(tmp_path / "series_seg.nii.gz", mask, image), image)
    np.testing.assert_array_equal(saved.data, mask)
    np.testing.assert_allclose(load_label(saved.source).affine, image.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "changes", "message"),
    [
        ((0, 4, 12, 16), {}, "the distance between slices is uneven (4 to 8 mm), so a slice is m"),
        ((0, 4, 4, 8), {}, "the distance between slices is uneven (0 to 4 mm), so a slice is m"),
        ((0, 4), {"SeriesInstanceUID": "1.9"}, "holds 2 DICOM series; put each in its own"),
        ((0, 4), {"NumberOfFrames": 3}, "expected one grey slice per DICOM file; convert"),
        ((0, 4), {"SamplesPerPixel": 3}, "expected one grey slice per DICOM file; convert"),
        ((0, 4), {"Rows": 5}, "slices differ in size; keep one stack"),
        ((0, 4), {"ImagePositionPatient": None}, "a slice has no ImagePositionPatient, so its"),
        ((0, 4), {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "slices point in different di"),
        ((0, 4), {"PixelSpacing": [2, 0.6]}, "slices of one series differ in PixelSpacing (["),
        ((0, 4), {"RepetitionTime": 900}, "slices of one series differ in RepetitionTime ("),
        ((0, 4), {"TemporalPositionIdentifier": 2}, "slices of one series differ in Temporal"),
        ((0, 4), {"ImageType": ["ORIGINAL", "P"]}, "slices of one series differ in ImageType"),
        ((0, 4), {"PhotometricInterpretation": "MONOCHROME1"}, "slices of one series differ in"),
        ((0, 4, 8, 12), {"ImagePositionPatient": [12, 20, 34]}, "slices are shifted sideways aga"),
        ((0, 4), {"ImagePositionPatient": [10, 60, 34]}, "slices are shifted sideways against e"),
    ],
)
def test_rejects(tmp_path, positions, changes, message):
    folder = tmp_path / "series"
    write_series(folder, positions, series=MR_HEADER, **changes)
    with pytest.raises(DataError) as caught:
        load_image(folder)
    assert str(caught.value).startswith(f"{folder}: {message}")


def test_what_may_differ_within_a_stack(tmp_path):
    """Rounded spacings, the repetition times of a triggered scan, elements that one slice lacks."""
    changes = {"PixelSpacing": [2.0001, 0.5], "RepetitionTime": 520, "EchoTime": None}
    pixels = write_series(
        tmp_path / "series", series=MR_HEADER, AcquisitionNumber=7, TriggerTime=31, **changes
    )
    assert load_image(tmp_path / "series").shape == pixels.T.shape


@pytest.mark.parametrize(("signed", "turned"), [(0, 4095.0), (1, -1.0)])
def test_monochrome1_is_turned_round(tmp_path, signed, turned):
    series = {
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelRepresentation": signed,
        "BitsStored": 12,
        "HighBit": 11,
    }
    pixels = np.random.default_rng(0).integers(0, 2000, (3, ROWS, COLUMNS)).astype(np.int16)
    write_dicom(tmp_path / "mr", pixels, (0, 4, 8), slope=2, intercept=5, series=series)
    expected = (turned - pixels.transpose(2, 1, 0)) * 2 + 5
    np.testing.assert_array_equal(load_image(tmp_path / "mr").data, expected)
    # Hounsfield units are what they are
    write_dicom(tmp_path / "ct", pixels, (0, 4, 8), series={**series, "Modality": "CT"})
    np.testing.assert_array_equal(
        load_image(tmp_path / "ct").data, pixels.transpose(2, 1, 0) - 1024
    )


def cut(content: bytes) -> bytes:
    return content[: content.index(b"\x28\x00\x10\x00US")]  # before Rows


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "not readable as a slice, as the files beside it are; copy or exp"),
        (lambda content: bytes(len(content)), "not readable as a slice, as the files beside it"),
        (cut, "not readable as a slice, as the files beside it are; copy or export the series"),
        (lambda content: content[:-9], "this slice cannot be decoded"),
        (
            lambda content: content.replace(b"10.0\\20.0\\30.0", b"10.0\\20x0\\30.0"),
            "this DICOM file is damaged (could not convert string to float: '20x0'); copy or exp",
        ),
    ],
    ids=["empty", "zeros", "cut", "short", "letters"],
)
def test_a_damaged_end_is_not_left_out(tmp_path, damage, message):
    """Without its first slice the series would still be even."""
    write_series(tmp_path / "series")
    first = tmp_path / "series" / "slice_4"
    content = first.read_bytes()
    assert damage(content) != content
    first.write_bytes(damage(content))
    assert find_cases(tmp_path)[0].image == tmp_path / "series"
    with pytest.raises(DataError) as caught:
        load_image(tmp_path / "series")
    assert str(caught.value).startswith(f"{first}: {message}")


def test_a_report_beside_the_slices_is_no_slice(tmp_path):
    pixels = write_series(tmp_path / "series")
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    report = pydicom.dcmread(tmp_path / "series" / "slice_1")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.SeriesInstanceUID = "1.2.9"
    report.save_as(tmp_path / "series" / "slice_0", enforce_file_format=True)
    assert load_image(tmp_path / "series").shape == pixels.T.shape
