from __future__ import annotations

import re
from pathlib import Path

import pytest

import benchmark_inference

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "ssl_alpnet")


@pytest.mark.slow
def test_every_second_of_a_run_on_made_up_scans_is_in_the_table(
    phantom_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "{weights: none, spatial_size: 64, device: cpu, support_ids: 1}"
    folder = str(phantom_dataset)
    words = [BUNDLE, "--dataset_dir", folder, "--support_dir", folder, "--cases", "2"]
    assert benchmark_inference.main([*words, "--knobs", small]) == 0
    said = capsys.readouterr().out
    said = said[said.index("## ssl_alpnet") :]
    table = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert table[0] == ["step", "before", "image_1.nii.gz", "image_2.nii.gz"]
    rows = {step: list(map(float, cells)) for step, *cells in table[2:]}
    assert min(rows["encode"]) > 0 and rows["build_support"][1:] == [0, 0]
    assert rows["segment"][1] > 0
    for column in range(3):
        parts = [rows[step][column] for step in ("encode", "build_support", "segment", "rest")]
        assert sum(parts) == pytest.approx(rows["sum"][column], abs=0.03)
    assert int(re.search(r"peak resident memory: (\d+) MiB", said)[1]) > 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([BUNDLE, "--knobs", "{nothing: 1}"], "the bundle has no knob nothing"),
        ([BUNDLE, "--knobs", "[1]"], "expected {knob: value}"),
        ([BUNDLE, "--knobs", "{"], "--knobs: { cannot be read"),
        ([BUNDLE, "--cases", "0"], "and 1 or more"),
        (["nowhere"], "nowhere: no bundle there"),
    ],
)
def test_rejects(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_inference.main([*words, "--dataset_dir", str(tmp_path)]) == 1
    assert sentence in capsys.readouterr().err
