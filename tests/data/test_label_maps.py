"""What counts as a label map: whole numbers also under a slope, and no scan."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import AFFINE, block_image, block_label, write_nifti

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image, load_label


def scaled(path: Path, values: np.ndarray, kind: type) -> tuple[Path, float]:
    """Write floats as integers with a slope, as nibabel does by itself; returns the slope."""
    image = nibabel.Nifti1Image(values.astype(np.float64), AFFINE)
    image.set_data_dtype(kind)
    nibabel.save(image, path)
    return path, float(nibabel.load(path).dataobj.slope)


@pytest.mark.parametrize(("kind", "largest"), [(np.int16, 208), (np.uint8, 53), (np.uint8, 208)])
def test_whole_numbers_under_a_slope(tmp_path: Path, kind: type, largest: int) -> None:
    label = np.zeros((9, 8, 7), np.int16)
    label[1:8, 2:7, 1:6] = np.arange(175).reshape(7, 5, 5) // 25 * largest // 6
    path, slope = scaled(tmp_path / "label.nii.gz", label, kind)
    stored = np.asarray(nibabel.load(path).dataobj)
    assert slope < 1 and not np.allclose(stored, np.rint(stored), atol=1e-3)
    np.testing.assert_array_equal(np.rint(stored), label)
    np.testing.assert_array_equal(load_label(path).data, label)


@pytest.mark.parametrize("largest", [1.0, 53.0, 220.0])
def test_shares_under_a_slope_are_no_label(tmp_path: Path, largest: float) -> None:
    values = np.linspace(0, largest, 9 * 8 * 7).reshape(9, 8, 7)
    for kind in (np.uint8, np.int16):
        path, _ = scaled(tmp_path / "label.nii.gz", values, kind)
        with pytest.raises(DataError, match="a label holds whole numbers, this one holds"):
            load_label(path)


def test_another_scan_is_no_label(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 400, block_label().shape).astype(np.int16)
    image = load_image(write_nifti(tmp_path / "image_1.nii.gz", block_image()))
    with pytest.raises(DataError, match="values that change from voxel to voxel, as a scan does"):
        load_label(write_nifti(tmp_path / "label_1.nii.gz", noise), image)


@pytest.mark.parametrize("name", ["chaos_t2", "btcv_ct", "hippocampus", "brains"])
def test_real_scans_are_no_labels(fsmis_data_dir: Path, tmp_path: Path, name: str) -> None:
    """Of one scan for another: not the same voxels, only of the same kind."""
    scan = sorted((fsmis_data_dir / name).glob("image_*"))[0]
    data = np.asarray(load_image(scan).data)
    values = np.rint(data - data.min()).astype(np.int32)
    with pytest.raises(DataError, match="values that change from voxel to voxel"):
        load_label(write_nifti(tmp_path / "label.nii.gz", values))
