from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.commands import benchmark

REPOSITORY = Path(__file__).parents[2]


def test_the_phantom_from_command_to_report(
    phantom_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ["evaluate", "--dataset_dir", str(phantom_dataset), "--output_dir", str(tmp_path / "r")]
    words += ["--num_folds", "3", "--folds", "0", "--spatial_size", "32", "--threads", "1"]
    bundle = f"{REPOSITORY}/bundles/ssl_alpnet:untrained"
    words += ["--labelled", "sections", "--subjects", "mask_copy", bundle]
    monkeypatch.setattr("sys.argv", ["tools/benchmark.py", *words])
    assert benchmark.main(words) == 0
    said = capsys.readouterr().out
    assert f"evaluate --dataset_dir {phantom_dataset.name}" in said and "| mask_copy" in said
    table = (tmp_path / "r" / "table.md").read_bytes()
    records = list((tmp_path / "r" / "cases").glob("*/*/*.json"))
    times = {path: path.stat().st_mtime_ns for path in records}
    assert benchmark.main(words) == 0
    assert times == {path: path.stat().st_mtime_ns for path in records}  # nothing computed twice
    assert (tmp_path / "r" / "table.md").read_bytes() == table
    joined = ["report", str(tmp_path / "r"), "--output_dir", str(tmp_path / "joined")]
    assert benchmark.main(joined) == 0
    assert (tmp_path / "joined" / "table.md").read_bytes() == table


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--subjects", "nothing"], "no such subject"),
        (["--subjects", "mask_copy", "--folds", "7"], "fold: expected a number from 0 to 2"),
        (["--subjects", "mask_copy", "--options", "{unet: {}}"], "no subject is called unet"),
        (["--subjects", "mask_copy", "--options", "{"], "--options: { cannot be read"),
        (["--subjects", "mask_copy", "--shots", "9"], "9 support scans at choice 0"),
    ],
)
def test_rejects(
    words: list[str], sentence: str, phantom_dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = ["evaluate", "--dataset_dir", str(phantom_dataset), "--output_dir", str(tmp_path / "r")]
    assert benchmark.main([*base, "--num_folds", "3", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--groups", "1,x"], "1, x: invalid literal for int"),
        (["--knobs", "epochs"], "--knobs: expected KNOB=VALUE, got epochs"),
    ],
)
def test_training_rejects(
    words: list[str], sentence: str, phantom_dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = ["train", "--bundle", str(REPOSITORY / "bundles" / "ssl_alpnet")]
    place = ["--dataset_dir", str(phantom_dataset), "--output_dir", str(tmp_path / "t")]
    assert benchmark.main([*base, *place, *words]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("before", [["tools/benchmark.py"], ["fsmis", "benchmark"]])
def test_the_command_that_is_told_can_be_given_again(
    before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", "--dataset_dir", "/data/scans", "--output_dir", "/tmp/o", "--folds", "0"]
    monkeypatch.setattr("sys.argv", [*before, *words])
    told = "python tools/benchmark.py evaluate --dataset_dir scans --folds 0"
    assert benchmark._command() == told
