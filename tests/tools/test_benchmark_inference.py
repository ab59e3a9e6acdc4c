from __future__ import annotations

import re
from pathlib import Path

import pytest
from block_scans import block_label, write_scan

import benchmark_inference

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "ssl_alpnet")


def test_every_second_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    words = [BUNDLE, "--dataset_dir", str(tmp_path), "--support_dir", str(tmp_path)]
    words += ["--weights", "untrained", "--knobs", "spatial_size=32", "device=cpu"]
    assert benchmark_inference.main(words) == 0
    said = capsys.readouterr().out
    said = said[said.index("## ssl_alpnet") :]
    table = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert table[0] == ["step", "support", "image_1.nii.gz", "image_2.nii.gz"]
    rows = {step: list(map(float, cells)) for step, *cells in table[2:]}
    assert rows["encode"][0] > 0 and rows["build_support"][1:] == [0, 0]
    for column in range(3):
        parts = [rows[step][column] for step in ("encode", "build_support", "segment", "rest")]
        assert sum(parts) == pytest.approx(rows["sum"][column], abs=0.03)
    assert int(re.search(r"peak resident memory: (\d+) MiB", said)[1]) > 100
