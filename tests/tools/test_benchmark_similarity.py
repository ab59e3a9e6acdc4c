from __future__ import annotations

import re
from pathlib import Path

import pytest

import benchmark_similarity


def test_speeds_are_ratios_to_plain_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output_dir", str(tmp_path), "--sides", "4", "--prototypes", "3", "--channels", "2"]
    words += ["--rounds", "2", "--dtypes", "float32", "--contenders", "streamed", "attention"]
    benchmark_similarity.main(words)
    said = capsys.readouterr().out
    assert (tmp_path / "similarity.md").read_text() == said
    lines = [line.strip("| ").split(" | ") for line in said.splitlines() if "| float32 |" in line]
    names = ["matmul + softmax", "streamed", "attention"]
    assert [(cells[4], cells[5]) for cells in lines] == [
        (direction, name) for direction in ("forward", "forward + backward") for name in names
    ]
    for *_, name, milliseconds, speed, memory, error in lines:
        assert float(milliseconds) > 0 and float(memory) >= 0 and float(error) < 1e-4
        if name == "matmul + softmax":
            assert speed == "1.00 (1.00 to 1.00)"
        assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", speed)

    assert benchmark_similarity.main(words) == 1
    assert "similarity.md: would be overwritten" in capsys.readouterr().err


@pytest.mark.skipif(benchmark_similarity.torch.cuda.is_available(), reason="triton runs here")
def test_a_backend_that_cannot_run_says_why(tmp_path: Path) -> None:
    words = ["--output_dir", str(tmp_path), "--sides", "4", "--prototypes", "3", "--channels", "2"]
    benchmark_similarity.main([*words, "--rounds", "1", "--contenders", "triton"])
    assert "the tensors are on cpu" in (tmp_path / "similarity.md").read_text()
