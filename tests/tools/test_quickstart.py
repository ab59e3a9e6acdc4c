from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import quickstart
from environment import REPOSITORY


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


def test_comparison_reads_labels_beside_the_queries(phantom: Path, tmp_path: Path):
    label = phantom / "scoring/label_2.nii.gz"
    (tmp_path / "image_2_seg.nii.gz").write_bytes(label.read_bytes())
    folders = {"support": phantom / "support", "label": phantom / "scoring", "mask": tmp_path}
    arguments = [text for name, path in folders.items() for text in (f"--{name}_dir", str(path))]
    command = [sys.executable, "tools/compare_masks.py", *arguments]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    mean = next(line for line in ended.stdout.splitlines() if line.strip().startswith("mean"))
    own, copied = map(float, mean.split()[1:])
    assert own == 100.0 and copied < 60
    assert str(tmp_path / "image_2_seg.nii.gz") in ended.stdout
