"""A folder of DICOM series through the evaluator."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import SHAPE, block_image, block_label, write_scan
from dicom_series import write_dicom
from folder_runs import evaluator, read_cases, sentence

STUDY = {"StudyInstanceUID": "1.2.8", "FrameOfReferenceUID": "1.2.9", "Modality": "CT"}


def write_block_series(folder: Path, voxels: np.ndarray) -> None:
    """A scan as a series: columns run to the patient's left, rows to posterior."""
    voxels = voxels[::-1, ::-1].transpose(2, 1, 0)
    positions = tuple(4.0 * index for index in range(SHAPE[2]))
    write_dicom(folder, voxels, positions, spacing=(1.0, 1.0), intercept=0, series=STUDY)


def test_series_beside_each_other_one_of_them_damaged(tmp_path: Path) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    for number in (2, 3, 10):
        voxels = np.rint(block_image(seed=number)).astype(np.int16)
        write_block_series(tmp_path / "series" / f"series_{number}", voxels)
        write_scan(tmp_path / "nifti", number, image=voxels)
    evaluator(tmp_path, "nifti_masks", queries="nifti").run()
    broken = tmp_path / "series" / "series_3" / "slice_7"
    broken.write_bytes(broken.read_bytes()[:-50])
    message = sentence(evaluator(tmp_path, "series_masks", queries="series").run)
    assert message.startswith("1 of 3 scans failed") and f"{broken}: this slice cannot" in message
    output = tmp_path / "series_masks"
    rows = read_cases(output)
    assert [(row["case"], row["status"]) for row in rows] == [
        ("series_2", "done"),
        ("series_3", "failed"),
        ("series_10", "done"),
    ]
    assert not (output / "series_3_seg.nii.gz").exists()
    same = {row["case"]: row for row in read_cases(tmp_path / "nifti_masks")}
    for row, number in ((rows[0], 2), (rows[2], 10)):
        mask = nibabel.load(output / f"series_{number}_seg.nii.gz")
        plain = nibabel.load(tmp_path / "nifti_masks" / f"image_{number}_seg.nii.gz")
        found = np.asarray(mask.dataobj)
        np.testing.assert_array_equal(found, np.asarray(plain.dataobj)[::-1, ::-1])
        assert found.any()
        expected = [[-1, 0, 0, -10], [0, -1, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
        np.testing.assert_allclose(mask.affine, expected, atol=1e-6)
        assert (mask.header["sform_code"], mask.header["qform_code"]) == (1, 1)
        assert (output / "overlays" / f"series_{number}.png").stat().st_size > 1000
        assert row["structure_1_ml"] == same[f"image_{number}"]["structure_1_ml"]


def test_a_series_gets_its_mask_as_dicom_seg_too(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    import pydicom

    write_scan(tmp_path / "s", 1, block_label())
    write_block_series(tmp_path / "q" / "series_2", np.rint(block_image(seed=2)).astype(np.int16))
    write_scan(tmp_path / "q", 3)
    output = tmp_path / "o"
    evaluator(tmp_path).run()
    assert not list(output.glob("*.dcm"))
    evaluator(tmp_path, dicom_seg=True).run()
    assert [path.name for path in output.glob("*.dcm")] == ["series_2_seg.dcm"]
    mask = np.asarray(nibabel.load(output / "series_2_seg.nii.gz").dataobj)
    found = pydicom.dcmread(output / "series_2_seg.dcm")
    assert found.pixel_array.sum() == np.count_nonzero(mask) > 0
    assert [each.SegmentLabel for each in found.SegmentSequence] == ["structure_1", "structure_2"]
    written = (output / "series_2_seg.dcm").stat().st_mtime_ns
    evaluator(tmp_path, dicom_seg=True).run()
    assert (output / "series_2_seg.dcm").stat().st_mtime_ns == written
