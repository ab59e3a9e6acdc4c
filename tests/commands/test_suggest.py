from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from fsmis_components.__main__ import main


def command(dataset: Path, output: Path, *words: str) -> list[str]:
    return [
        *("suggest", str(dataset), "--output", str(output)),
        *("--weights", "untrained", "--spatial_size", "32", *words),
    ]


def test_from_command_to_table(
    phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(phantom_dataset, tmp_path)) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "suggestion.json").read_text())
    best = found["scans"][0]
    assert sorted(scan["name"] for scan in found["scans"]) == ["1", "2", "3", "4"]
    assert [scan["chosen"] for scan in found["scans"]] == [1, 0, 0, 0]
    gains = [scan["gain"] for scan in found["scans"]]
    assert gains == sorted(gains, reverse=True) and gains[0] > gains[-1]
    assert len(best["slices"]["all structures"]) == 6
    assert f"label {best['image']}" in said
    rows = list(csv.DictReader((tmp_path / "suggestion.csv").read_text().splitlines()))
    assert [row["scan"] for row in rows] == [scan["name"] for scan in found["scans"]]
    files = sorted((tmp_path / "encoded").iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    assert main(command(phantom_dataset, tmp_path)) == 0
    assert len(files) == 4 and [file.stat().st_mtime_ns for file in files] == times


def test_beside_a_support(
    phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = tmp_path / "support"
    support.mkdir()
    for kind in ("image", "label"):
        shutil.copy(phantom_dataset / f"{kind}_2.nii.gz", support)
    words = ("--labelled", str(support), "--num", "2", "--slices", "1")
    assert main(command(phantom_dataset, tmp_path / "out", *words)) == 0
    found = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    # scan 2 is labelled already
    assert sorted(scan["name"] for scan in found["scans"]) == ["1", "3", "4"]
    assert [scan["chosen"] for scan in found["scans"]] == [1, 2, 0]
    assert set(found["scans"][0]["slices"]) == {f"structure_{value}" for value in (1, 2, 3, 4)}
    assert found["facts"]["support"] == ["2"]
    assert "structure_1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "nowhere"], "no bundle there"),
        (["--sharpness", "3"], "no knob sharpness"),
        (["--labelled", "nowhere"], "nowhere"),
    ],
)
def test_rejects(
    words: list[str], sentence: str, phantom_dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(command(phantom_dataset, tmp_path / "out", *words)) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
