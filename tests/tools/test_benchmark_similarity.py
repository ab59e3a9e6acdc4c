from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmark_similarity

TINY = [
    *("--device", "cpu", "--sides", "4", "--prototypes", "3", "--channels", "2"),
    *("--rounds", "2", "--shortest_ms", "0.01", "--contenders", "matmul + softmax", "streamed"),
]


def test_command_writes_tables_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {"side": 16, "copied": 1024, "runs": 2}
    measure = benchmark_similarity.measure_ceilings
    monkeypatch.setattr(
        benchmark_similarity,
        "measure_ceilings",
        lambda dtype, device: measure(dtype, device, **sides),
    )
    folder = tmp_path / "similarity"
    words = ["--output_dir", str(folder), "--threads", "1", "--reductions", "max", "logsumexp"]
    assert benchmark_similarity.main([*words, *TINY]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"similarity.{ending}" for ending in ("csv", "json", "md", "png")]
    said = capsys.readouterr().out
    assert (folder / "similarity.md").read_text() in said and str(folder) in said
    content = json.loads((folder / "similarity.json").read_text())
    assert content["threads"] == 1 and content["settings"]["rounds"] == 2
    # reductions, dtypes, passes, contenders
    assert len(content["rows"]) == 2 * 2 * 2 * 2
    assert not any(row["skipped"] for row in content["rows"])

    before = (folder / "similarity.json").read_bytes()
    assert benchmark_similarity.main([*words, *TINY]) == 1
    refused = capsys.readouterr().err.strip()
    assert "holds a similarity benchmark already" in refused and "\n" not in refused
    assert (folder / "similarity.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sides", "0"], "--sides: expected numbers of 1 or more, got [0]."),
        (["--batch", "0"], "--batch: expected numbers of 1 or more, got [0]."),
        (["--rounds", "0"], "--rounds: expected a number above 0, got 0."),
        (["--threads", "-1"], "--threads: expected a number above 0, got -1."),
        (["--contenders", "magic"], "--contenders: 'magic' is unknown; choose among"),
    ],
)
def test_rejects(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_similarity.main(["--output_dir", str(tmp_path / "r"), *TINY, *words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_no_gpu_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_similarity.torch.cuda, "is_available", lambda: False)
    assert benchmark_similarity.main(["--output_dir", str(tmp_path), "--device", "cuda"]) == 1
    assert "no CUDA device here" in capsys.readouterr().err
