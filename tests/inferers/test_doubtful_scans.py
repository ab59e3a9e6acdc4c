"""Scans of a folder run whose header or intensities give reason to doubt the mask."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_image, block_label, write_scan
from folder_runs import evaluator, read_cases


def ct_image(seed: int) -> np.ndarray:
    """The blocks in soft tissue between fat and air, in Hounsfield units."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, 5.0, block_image().shape).round().astype(np.int16)
    image[:, :5] -= 1000
    image[:, 5:9] -= 100
    return image + block_image(seed=seed).astype(np.int16)


def run(root: Path) -> list[dict[str, str]]:
    """Segment root/q by root/s; returns the rows of the table."""
    evaluator(root, progress=True).run()
    return read_cases(root / "o")


def test_a_scan_of_another_modality_is_told_in_row_report_and_on_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "s", 1, block_label(), ct_image(1))
    write_scan(tmp_path / "q", 2, image=ct_image(2))
    write_scan(tmp_path / "q", 3, image=(ct_image(3) + 1024).astype(np.uint16))
    write_scan(tmp_path / "q", 4, image=block_image(seed=4) + 50)
    rows = run(tmp_path)
    assert [row["modality"] for row in rows] == ["ct", "ct, stored with an offset of 1024", "ct"]
    assert rows[0]["warning"] == rows[1]["warning"] == ""
    said = "is taken as CT, as the support is, but holds no Hounsfield units"
    assert said in rows[2]["warning"]
    assert said in (tmp_path / "o" / "report.html").read_text()
    shown = capsys.readouterr()
    assert f"image_4: {rows[2]['warning']}" in shown.out + shown.err
    masks = [tmp_path / "o" / f"image_{number}_seg.nii.gz" for number in (2, 3)]
    for mask in masks:
        np.testing.assert_array_equal(
            np.asarray(nibabel.load(mask).dataobj) == 2, block_label() == 2
        )
