from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import benchmark_inference
from fsmis_components.data.geometry import SliceView

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "ssl_alpnet")


@pytest.mark.slow
def test_every_second_of_a_run_on_made_up_scans_is_in_the_table(
    phantom_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = SliceView.slices
    small = "{weights: none, spatial_size: 64, device: cpu, support_ids: 1}"
    folder = str(phantom_dataset)
    words = [BUNDLE, "--dataset_dir", folder, "--support_dir", folder, "--cases", "2"]
    benchmark_inference.main([*words, "--knobs", small])
    said = capsys.readouterr().out
    assert SliceView.slices is slices  # what was timed is as before
    said = said[said.index("## ssl_alpnet") :]
    table = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert table[0] == ["stage", "before", "image_1.nii.gz", "image_2.nii.gz"]
    rows = {stage: cells for stage, *cells in table[2:]}
    assert rows["support"][0] != "-" and rows["read and check the scan"][0] == "-"
    stages = [stage for stage, _, _ in benchmark_inference.STAGES]
    for stage in {*stages, "encode", "segment"} - {"support", "expected shapes"}:
        assert float(rows[stage][2]) >= 0
    for column in range(3):
        parts = [rows[stage][column] for stage in {*stages, "encode", "segment", "rest"}]
        total = sum(float(part) for part in parts if part != "-")
        assert total == pytest.approx(float(rows["sum"][column]), abs=0.01 * len(parts))
    assert int(re.search(r"peak resident memory: (\d+) MiB", said)[1]) > 100


def test_a_stage_within_another_belongs_to_it() -> None:
    clock = benchmark_inference.Clock(torch.device("cpu"))
    inner = clock.timed(lambda: 1, "inner")
    outer = clock.timed(inner, "outer")
    assert outer() == 1
    assert "inner" not in clock.split()
    assert inner() == 1
    assert "inner" in clock.split()


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
