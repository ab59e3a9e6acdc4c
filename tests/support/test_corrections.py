from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.support import Corrections


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Corrected masks, none yet, and three scans."""
    for number in (2, 3, 10):
        write_scan(tmp_path / "q", number)
    (tmp_path / "c").mkdir()
    return tmp_path / "c", tmp_path / "q"


def test_masks_are_found_by_the_name_of_their_scan(folders: tuple[Path, Path]) -> None:
    masks, scans = folders
    write_nifti(masks / "image_10_seg.nii.gz", block_label())
    write_nifti(masks / "image_2.nii.gz", block_label({1: 1}))
    write_nifti(masks / "image_3_uncertainty.nii.gz", block_label())
    found = Corrections(masks, scans).found()
    assert list(found) == ["image_2", "image_10"]
    scan = found["image_10"].load()
    assert scan.name == "10" and scan.image.source == scans / "image_10.nii.gz"
    np.testing.assert_array_equal(scan.label.data, block_label())
    assert Corrections(None, scans).found() == {}


def test_in_an_output_folder_only_changed_masks_count(folders: tuple[Path, Path]) -> None:
    masks, scans = folders
    paths = {
        number: write_nifti(masks / f"image_{number}_seg.nii.gz", block_label())
        for number in (2, 3, 10)
    }
    written = {"image_2": file_hash(paths[2]), "image_3": file_hash(paths[3])}  # 10: unfinished
    (masks / "run.json").write_text(json.dumps({"masks": written}))
    with pytest.raises(DataError, match="no mask was changed since"):
        Corrections(masks, scans).found()
    write_nifti(paths[3], block_label({1: 1}))
    assert list(Corrections(masks, scans).found()) == ["image_3"]
    # a mask that was taken over once remains a corrected one
    (masks / "run.json").write_text(json.dumps({"masks": {**written, "image_2": ""}}))
    assert list(Corrections(masks, scans).found()) == ["image_2", "image_3"]


def test_rejects(folders: tuple[Path, Path]) -> None:
    masks, scans = folders

    def refusal() -> str:
        with pytest.raises(DataError) as raised:
            Corrections(masks, scans).found()
        return str(raised.value)

    assert "no corrected mask" in refusal()
    write_nifti(masks / "image_2.nii.gz", block_label())
    second = write_nifti(masks / "image_2_seg.nii.gz", block_label())
    assert "a second corrected mask of image_2" in refusal()
    second.rename(masks / "image_7_seg.nii.gz")
    assert "a corrected mask of no scan" in refusal()
    (masks / "run.json").write_text("{}")  # of a run before masks were noted
    assert "does not say which masks the run wrote" in refusal()
    with pytest.raises(DataError, match="no such folder"):
        Corrections(masks / "missing", scans).found()
