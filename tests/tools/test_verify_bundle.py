from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import verify_bundle
from environment import REPOSITORY
from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError
from verify_bundle import asked, unpack, verify

BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))


@pytest.fixture(autouse=True)
def _log_again() -> Iterator[None]:
    """The command silences logging for its process, which here is that of other tests."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(REPOSITORY / "bundles" / "ssl_alpnet", tmp_path / "ssl_alpnet")


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_bundles_of_the_repository_pass(bundle: Path) -> None:
    assert not verify(bundle)


def test_a_bad_bundle_gets_one_line_per_problem(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "LICENSE").unlink()
    (copied / "configs" / "metadata.json").write_text("{")
    assert command(verify_bundle.verify_bundle, [str(copied), "--static"]) == 1
    said = capsys.readouterr()
    assert "files: LICENSE is missing: add it" in said.out
    assert "JSONDecodeError" in said.err and "Traceback" not in said.out + said.err
    assert said.err.count("\n") == 3
    assert command(verify_bundle.verify_bundle, [str(copied / "nowhere")]) == 1
    assert "there is no folder or archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("check", "change", "said"),
    [
        ("check_schema", lambda c: c.pop("version"), "version"),
        ("check_schema", lambda c: c.update(schema="a/other.json"), "'other.json'"),
        (
            "check_network",
            lambda c: c["network_data_format"]["outputs"]["pred"].update(num_channels=3),
            "output channel number",
        ),
        (
            "check_support_pack",
            lambda c: c["network_data_format"]["outputs"]["pred"]["channel_def"].pop("1"),
            "channel_def",
        ),
    ],
)
def test_each_fault_is_found(copied: Path, check: str, change: Any, said: str) -> None:
    path = copied / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert said in " ".join(asked(getattr(verify_bundle, check), copied))


@pytest.mark.parametrize(
    "name", ["../escaped", "toy/../../escaped", "/escaped", "C:\\escaped", "other/file"]
)
def test_nothing_of_an_archive_leaves_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as archive:
        archive.writestr("toy/LICENSE", "permission is granted")
        member = zipfile.ZipInfo("name")
        member.filename = name  # as it is, also where zipfile would mend it
        archive.writestr(member, "wicked")
    if name == "toy/../../escaped":
        assert (unpack(tmp_path / "toy.zip", folder) / "escaped").is_file()
    else:
        with pytest.raises(DataError, match="one folder"):
            unpack(tmp_path / "toy.zip", folder)
    outside = {path.name for path in tmp_path.rglob("*") if folder not in path.parents}
    assert outside == {"a", "b", "toy.zip"}


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/LICENSE", "permission is granted")
    whole = path.read_bytes()
    for damaged in (whole[:50], b"a text", whole.replace(b"is granted", b"is refused")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no readable zip archive"):
            unpack(path, tmp_path / "unpacked")
