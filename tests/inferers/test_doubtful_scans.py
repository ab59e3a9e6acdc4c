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


def without_orientation(path: Path) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None), path)


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


@pytest.mark.parametrize("whose", ["image_2", "support scan 1"])
def test_a_header_without_orientation_is_told(
    tmp_path: Path, whose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    support = write_scan(tmp_path / "s", 1, block_label())
    query = write_scan(tmp_path / "q", 2)
    without_orientation(query if whose == "image_2" else support)
    if whose != "image_2":
        without_orientation(tmp_path / "s" / "label_1.nii.gz")
    [row] = run(tmp_path)
    said = "says nothing of its orientation (qform and sform codes are 0), so left and right may"
    assert said in row["warning"]
    assert ("support scan 1" in row["warning"]) == (whose != "image_2")
    assert said in (tmp_path / "o" / "report.html").read_text()
    shown = capsys.readouterr()
    assert said in shown.out + shown.err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.797e308, "hold values like 1.797e+308"),
        (-1e31, "hold values like"),
        (-9999, "holds -9999"),
    ],
)
def test_no_data_is_named_and_not_averaged(tmp_path: Path, value: float, message: str) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    image = block_image(seed=2).astype(np.float64)
    image[:3] = value
    write_scan(tmp_path / "q", 2, image=image)
    write_scan(tmp_path / "q", 3)
    with pytest.raises(SystemExit, match="1 of 2 scans failed"):
        run(tmp_path)
    rows = read_cases(tmp_path / "o")
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "image_2.nii.gz: " in rows[0]["message"] and message in rows[0]["message"]
