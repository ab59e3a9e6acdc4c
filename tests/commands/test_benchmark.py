from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.commands import benchmark

REFERENCE = Path(__file__).parents[2] / "bundles" / "ssl_alpnet"


@pytest.mark.slow
def test_the_phantom_from_command_to_report(
    phantom_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluate = ["evaluate", "--subjects", "mask_copy", f"{REFERENCE}:untrained"]
    evaluate += ["--dataset_dir", str(phantom_dataset), "--output_dir", str(tmp_path / "r")]
    evaluate += ["--num_folds", "3", "--folds", "0", "--spatial_size", "32"]
    monkeypatch.setattr("sys.argv", ["tools/benchmark.py", *evaluate])
    assert benchmark.main(evaluate) == 0
    said = capsys.readouterr().out
    assert "evaluate --subjects mask_copy" in said
    assert "| mask_copy" in said and str(tmp_path) not in said.split("\n\n")[0]
    table = (tmp_path / "r" / "table.md").read_bytes()
    records = list((tmp_path / "r" / "cases").glob("*/*/*.json"))
    times = {path: path.stat().st_mtime_ns for path in records}
    assert benchmark.main(evaluate) == 0
    assert times == {path: path.stat().st_mtime_ns for path in records}  # nothing computed twice
    assert (tmp_path / "r" / "table.md").read_bytes() == table
    assert benchmark.main(["report", str(tmp_path / "r"), "--output_dir", str(tmp_path / "j")]) == 0
    assert (tmp_path / "j" / "table.md").read_bytes() == table


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("evaluate --subjects nothing", "no such subject"),
        ("evaluate --subjects mask_copy --folds 7", "fold: expected a number from 0 to 4"),
        ("evaluate --subjects mask_copy --options {'unet':{}}", "no subject is called unet"),
        ("evaluate --subjects mask_copy --shots 9", "9 support scans at choice 0"),
        (f"train --bundle {REFERENCE} --groups 1,x", "1, x: invalid literal for int"),
    ],
)
def test_rejects(
    words: str, sentence: str, phantom_dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = ["--dataset_dir", str(phantom_dataset), "--output_dir", str(tmp_path / "r")]
    assert benchmark.main([*words.split(), *places]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("before", [["tools/benchmark.py"], ["fsmis", "benchmark"]])
def test_the_command_that_is_told_can_be_given_again(
    before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", "--dataset_dir", "/data/scans", "--output_dir", "/tmp/o", "--folds", "0"]
    monkeypatch.setattr("sys.argv", [*before, *words])
    told = "python tools/benchmark.py evaluate --dataset_dir scans --folds 0"
    assert benchmark._command() == told
