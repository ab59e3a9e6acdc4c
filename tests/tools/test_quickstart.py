from __future__ import annotations

from pathlib import Path

import pytest

import compare_masks
import quickstart


@pytest.fixture(autouse=True)
def own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pictures that a person made with the quickstart."""
    monkeypatch.setattr(quickstart, "WORK", tmp_path / "quickstart")


def test_without_folders_two_scans_of_the_repository_serve() -> None:
    folders = quickstart._parse([])
    assert (folders.support_dir / "label_1.nii.gz").is_file()
    assert (folders.query_dir / "image_2.nii.gz").is_file()
    size = sum(path.stat().st_size for path in quickstart.EXAMPLE.rglob("*"))
    assert size < 2e6 and (quickstart.EXAMPLE / "LICENSE").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--support_dir", "."], "go together"),
        (["--support_dir", "absent", "--query_dir", "."], "there is no folder"),
    ],
)
def test_rejects(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        quickstart._parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_comparison_reads_labels_beside_the_queries(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    label = phantom / "scoring/label_2.nii.gz"
    (tmp_path / "image_2_seg.nii.gz").write_bytes(label.read_bytes())
    compare_masks.compare(phantom / "scoring", tmp_path)
    said = capsys.readouterr().out
    assert [f"2, label {value}: 100.0" in said for value in (1, 2, 3, 4)] == [True] * 4
    assert str(tmp_path / "image_2_seg.nii.gz") in said
