from __future__ import annotations

import csv
from pathlib import Path

import pytest

import benchmark_inference

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "ssl_alpnet")


def words(folder: Path, *more: str) -> list[str]:
    return [BUNDLE, "--dataset_dir", str(folder), *more, "--output_dir", str(folder / "timing")]


@pytest.mark.slow
def test_a_bundle_on_made_up_scans(
    phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "{weights: none, spatial_size: 64, device: cpu}"
    support = ["--support_dir", str(phantom_dataset), "--support_ids", "1", "--cases", "2"]
    command = [BUNDLE, "--dataset_dir", str(phantom_dataset), *support, "--knobs", small]
    command += ["--threads", "1", "--output_dir", str(tmp_path / "t")]
    assert benchmark_inference.main(command) == 0
    said = capsys.readouterr().out
    assert "## ssl_alpnet" in said and "first: image_1" in said and "second: image_2" in said
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "inference.csv",
        "inference.md",
    ]
    assert (tmp_path / "t" / "inference.md").read_text() == said[said.index("## ssl_alpnet") :]
    with (tmp_path / "t" / "inference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["scan"].split()[0], row["stage"]) for row in rows}
    assert {("before", "read support"), ("image_2.nii.gz", "write")} <= found
    assert ("image_3.nii.gz", "read") not in found and (
        "image_1.nii.gz",
        "read support",
    ) not in found


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--knobs", "[1]"], "--knobs: expected {knob: value}, got [1]."),
        (["--structures", "{"], "--structures: { cannot be read"),
    ],
)
def test_rejects(
    more: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_inference.main(words(tmp_path, *more)) == 1
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1


def test_no_scans_to_segment(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        benchmark_inference.main(words(tmp_path, "--cases", "0"))
