from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import fsmis_components
import pack_bundle
from environment import REPOSITORY
from fsmis_components.data.errors import DataError
from fsmis_components.packaging import content_hash
from pack_bundle import pack
from pack_use import use_packed
from verify_bundle import verify_archive, verify_folder

BUNDLE = REPOSITORY / "bundles" / "ssl_alpnet"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the packed bundle of the repository; its checks are those of tools/test.py."""
    return pack(BUNDLE, tmp_path_factory.mktemp("dist"), no_verify=True)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLE, tmp_path / "copy" / BUNDLE.name)


def _set_version(root: Path, version: str) -> None:
    path = root / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"version": "0.2.0"', f'"version": "{version}"'))


def test_the_same_content_gives_the_same_bytes(
    archive: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for made in ("outputs/a.nii", "models/previous/model.pt", "eval/x", "docs/__pycache__/a.pyc"):
        (copied / made).parent.mkdir(parents=True, exist_ok=True)
        (copied / made).write_text("made by use")
    (copied / "configs" / ".hidden.json").write_text("{}")
    for path in copied.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (copied / "LICENSE").chmod(0o600)
    again = pack(copied, tmp_path / "dist", no_verify=True)
    assert again.read_bytes() == archive.read_bytes()
    assert "left out: eval, outputs" in capsys.readouterr().out


def test_the_archive_holds_bundle_package_and_stamp(archive: Path):
    assert archive.name == "ssl_alpnet_v0.2.0.zip"
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        stamp = json.loads(file.read("ssl_alpnet/fsmis_components/packed.json"))
        weights = file.read("ssl_alpnet/models/model.pt")
    names = [member.filename for member in members]
    assert names == sorted(names)
    for name in ("LICENSE", "configs/train.json", "docs/README.md", "fsmis_components/py.typed"):
        assert f"ssl_alpnet/{name}" in names
    assert {(m.date_time, m.external_attr >> 16, m.extra) for m in members} == {
        ((1980, 1, 1, 0, 0, 0), 0o100644, b"")
    }
    assert weights == (BUNDLE / "models" / "model.pt").read_bytes()
    package = Path(fsmis_components.__file__).parent
    assert stamp == {
        "bundle": "ssl_alpnet",
        "bundle_version": "0.2.0",
        "package_version": fsmis_components.__version__,
        "content": content_hash(package),
    }


def test_packing_again_changes_nothing_and_a_new_version_joins(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "dist"
    first = pack(copied, output, no_verify=True)
    index = (output / "index.json").read_bytes()
    assert pack(copied, output, no_verify=True) == first
    assert "there already" in capsys.readouterr().out
    assert (output / "index.json").read_bytes() == index
    _set_version(copied, "0.3.0")
    pack(copied, output, no_verify=True)
    entries = json.loads((output / "index.json").read_text())["bundles"]
    assert [entry["version"] for entry in entries] == ["0.2.0", "0.3.0"]
    assert sorted(path.name for path in output.iterdir()) == [
        "index.json",
        "ssl_alpnet_v0.2.0.zip",
        "ssl_alpnet_v0.3.0.zip",
    ]


def test_other_content_of_the_same_version_is_refused(copied: Path, tmp_path: Path):
    path = pack(copied, tmp_path / "dist", no_verify=True)
    before = path.read_bytes()
    (copied / "LICENSE").write_text("another")
    with pytest.raises(DataError, match="exists with other content: give metadata.json a new"):
        pack(copied, tmp_path / "dist", no_verify=True)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.json", path.name]


def _of_others(root: Path) -> None:
    for path in (root / "configs").glob("*.json"):
        path.write_text(path.read_text().replace("fsmis_components", "another"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "configs" / "metadata.json").unlink(), "is no bundle"),
        (lambda root: (root / "configs" / "metadata.json").write_text("{"), "is not JSON"),
        (lambda root: (root / "fsmis_components").mkdir(), "packed already"),
        (lambda root: (root / "docs" / "link.md").symlink_to(root / "LICENSE"), "is a link"),
        (_of_others, "does not use fsmis_components"),
    ],
)
def test_what_cannot_be_packed_is_one_sentence(
    damage: Callable[[Path], None],
    said: str,
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    damage(copied)
    output = tmp_path / "dist"
    monkeypatch.setattr(pack_bundle.logging, "disable", lambda level: None)
    assert pack_bundle.main([str(copied), "--output", str(output), "--no_verify"]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not output.exists()


def test_the_files_of_an_archive_are_checked(archive: Path, tmp_path: Path):
    lines: list[str] = []
    assert verify_archive(archive, lines.append, static=True), lines
    said = dict(line.strip().split(": ", 1) for line in lines)
    assert said["stamp"] == said["files"] == said["metadata schema"] == "ok"

    shutil.unpack_archive(archive, tmp_path)
    root = tmp_path / "ssl_alpnet"
    # static means that nothing of the bundle is imported
    (root / "fsmis_components" / "__init__.py").write_text("raise SystemExit('imported')\n")
    lines.clear()
    assert not verify_folder(root, lines.append, static=True)
    assert lines[0].strip().startswith("stamp: the copy of fsmis_components was changed")
    assert all(": ok" in line for line in lines[1:])
    (root / "fsmis_components" / "packed.json").unlink()
    assert not verify_folder(root, lines.append, static=True)
    assert "has no stamp: pack the bundle by tools/pack_bundle.py" in " ".join(lines)


@pytest.mark.slow
def test_the_archive_works_away_from_the_repository(archive: Path, tmp_path: Path):
    shutil.unpack_archive(archive, tmp_path)
    lines: list[str] = []
    assert use_packed(tmp_path / "ssl_alpnet", lines.append, archive), lines
    assert [line.strip() for line in lines] == [
        "run elsewhere: ok",
        "download: ok",
        "load: ok",
        "own support: ok",
        "training: ok",
        "evaluation: ok",
    ]
