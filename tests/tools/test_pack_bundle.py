from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmis_components
from environment import REPOSITORY
from fsmis_components.commands.command_line import command
from fsmis_components.packaging import content_hash
from pack_bundle import pack
from verify_bundle import unpack, verify, verify_bundle

BUNDLE = REPOSITORY / "bundles" / "ssl_alpnet"
NAME = "ssl_alpnet_v0.2.0.zip"


@pytest.fixture(autouse=True)
def _log_again() -> Iterator[None]:
    """The commands silence logging for their process, which here is that of other tests."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the packed bundle of the repository; its checks are those of test_verify_bundle.py."""
    folder = tmp_path_factory.mktemp("dist")
    assert not pack(BUNDLE, folder, no_verify=True)
    return folder / NAME


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLE, tmp_path / "copy" / BUNDLE.name)


def test_the_same_content_gives_the_same_bytes_and_other_content_is_refused(
    archive: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for made in ("outputs/a.nii", "models/previous/model.pt", "eval/x", "docs/__pycache__/a.pyc"):
        (copied / made).parent.mkdir(parents=True, exist_ok=True)
        (copied / made).write_text("made by use")
    (copied / "configs" / ".hidden.json").write_text("{}")
    for path in copied.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (copied / "LICENSE").chmod(0o600)
    words = [str(copied), "--output", str(tmp_path / "dist"), "--no_verify"]
    for _ in range(2):
        assert command(pack, words) == 0
        assert "left out: eval, outputs" in capsys.readouterr().out
        assert (tmp_path / "dist" / NAME).read_bytes() == archive.read_bytes()
    (copied / "LICENSE").write_text("another")
    assert command(pack, words) == 1
    assert "exists with other content: give metadata.json a new" in capsys.readouterr().err
    assert (tmp_path / "dist" / NAME).read_bytes() == archive.read_bytes()


def test_the_archive_holds_bundle_package_and_stamp(archive: Path):
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
    assert stamp == {
        "bundle": "ssl_alpnet",
        "bundle_version": "0.2.0",
        "package_version": fsmis_components.__version__,
        "content": content_hash(Path(fsmis_components.__file__).parent),
    }


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
    capsys: pytest.CaptureFixture[str],
):
    damage(copied)
    assert command(pack, [str(copied), "--output", str(tmp_path / "dist")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "dist").exists()


def test_the_files_of_an_archive_are_checked(archive: Path, tmp_path: Path):
    assert not verify_bundle(archive, static=True)
    root = unpack(archive, tmp_path)
    # static means that nothing of the bundle is imported
    (root / "fsmis_components" / "__init__.py").write_text("raise SystemExit('imported')\n")
    [problem] = verify(root, static=True)
    assert "the copy of fsmis_components was changed" in problem
    (root / "fsmis_components" / "packed.json").unlink()
    [problem] = verify(root, static=True)
    assert "has no stamp" in problem


@pytest.mark.slow
def test_the_archive_works_away_from_the_repository(
    archive: Path, capsys: pytest.CaptureFixture[str]
):
    assert not verify_bundle(archive)
    assert "use: ok" in capsys.readouterr().out
