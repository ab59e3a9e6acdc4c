from __future__ import annotations

from pathlib import Path

import pytest

import benchmark_similarity


def test_the_table_and_why_a_backend_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_similarity.torch.cuda, "is_available", lambda: False)
    words = ["--output_dir", str(tmp_path), "--sides", "4", "--prototypes", "3", "--channels", "2"]
    words += ["--seconds", "0.001", "--dtypes", "float32"]
    words += ["--contenders", "streamed", "attention", "triton"]
    assert benchmark_similarity.main(words) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "similarity.md").read_text() == said
    lines = [line.strip("| ").split(" | ") for line in said.splitlines() if "| float32 |" in line]
    names = ["matmul + softmax", "streamed", "attention", "triton"]
    assert [(cells[4], cells[5]) for cells in lines] == [
        (direction, name) for direction in ("forward", "forward + backward") for name in names
    ]
    for *_, name, milliseconds, _, speed, error in lines[:3]:
        assert float(milliseconds) > 0 and float(error) < 1e-4
        assert speed == "1.00" if name == "matmul + softmax" else float(speed) > 0
    assert "skipped: " in said and "the tensors are on cpu" in said
    assert benchmark_similarity.main(words) == 1
    assert "similarity.md: would be overwritten" in capsys.readouterr().err
