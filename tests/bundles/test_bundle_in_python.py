"""A bundle in Python gives what its command gives."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_scan

from fsmis_components import load_bundle
from fsmis_components.data.errors import DataError
from fsmis_components.support import load_support_set

KNOBS = {"spatial_size": 64, "self_test": False}


def test_one_scan_and_a_folder(tmp_path: Path) -> None:
    write_scan(tmp_path / "labelled", 1, block_label())
    scan = write_scan(tmp_path / "scans", 5)
    loaded = load_bundle("ssl_alpnet", **KNOBS)
    support = loaded.support(tmp_path / "labelled", structures=[2])
    # read by the caller, they make the same pack, which knows mirrored scans too
    read = loaded.support(load_support_set(tmp_path / "labelled", structures=[2]))
    assert read.profiles[0].tensors().keys() == support.profiles[0].tensors().keys()
    result = loaded.segment(scan, support, tmp_path / "mask.nii.gz")
    assert result.label.shape == nibabel.load(scan).shape
    assert list(result.expected_dice) == [support.structures[0].name]
    stored = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), result.label)
    np.testing.assert_array_equal(stored.affine, nibabel.load(scan).affine)
    loaded.segment_folder(
        tmp_path / "scans", tmp_path / "masks", tmp_path / "labelled", structures=[2]
    )
    written = nibabel.load(tmp_path / "masks" / "image_5_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), result.label)
    assert (tmp_path / "masks" / "report.html").is_file()


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no bundle there"):
        load_bundle(tmp_path)
    with pytest.raises(DataError, match="no knob sharpness"):
        load_bundle("ssl_alpnet", sharpness=3)
    with pytest.raises(DataError, match="no such weights file"):
        load_bundle("ssl_alpnet", tmp_path / "model.pt")
    with pytest.raises(DataError, match="--amp: expected auto, True or False"):
        load_bundle("ssl_alpnet", amp="half")
    loaded = load_bundle("ssl_alpnet", **KNOBS)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        loaded.segment(tmp_path / "scan.nii.gz", tmp_path, tmp_path / "file" / "mask.nii.gz")
    with pytest.raises(DataError, match="nowhere"):
        pack = loaded.root / "models" / "support_pack.safetensors"
        loaded.segment(tmp_path / "nowhere.nii.gz", pack)
    write_scan(tmp_path / "labelled", 1, block_label())
    with pytest.raises(DataError, match="no such file or folder"):
        loaded.segment_folder(tmp_path / "empty", tmp_path / "out", tmp_path / "labelled")
