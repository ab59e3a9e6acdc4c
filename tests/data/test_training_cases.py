from pathlib import Path

import pytest

from fsmis_components.data.training_cases import training_split


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_is_not_used_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    for name in ("image_1.nii", "image_2.nii", "image_3.nii", "scan_9.nii"):
        (tmp_path / name).touch()
    monkeypatch.setenv("RANK", rank)
    assert len(training_split(tmp_path).train) == 2
    told = (
        f"{tmp_path}: 1 not used\n  scan_9.nii: not called image_<id>, as the scans beside it are\n"
    )
    assert capsys.readouterr().out == (told if rank == "0" else "")
