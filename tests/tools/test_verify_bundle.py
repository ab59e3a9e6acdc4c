from __future__ import annotations

import json
import logging
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bundle_checks
from bundle_checks import Bundle
from environment import REPOSITORY
from fsmis_components.data.errors import DataError
from verify_bundle import main, unpack, verify_archive

BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))
LINK = (stat.S_IFLNK | 0o777) << 16


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
    lines: list[str] = []
    assert bundle_checks.verify(bundle, lines.append), lines


def test_a_bad_bundle_gets_one_line_per_problem(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "LICENSE").unlink()
    (copied / "configs" / "metadata.json").write_text("{")
    assert main([str(copied), "--static"]) == 1
    said = capsys.readouterr()
    assert "files: LICENSE is missing: add it" in said.out
    assert "JSONDecodeError" in said.out and "Traceback" not in said.out + said.err
    assert said.err.count("\n") == 1
    assert main([str(copied / "nowhere")]) == 1
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
    ask = getattr(bundle_checks, check)
    path = copied / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert said in " ".join(bundle_checks.asked(ask, Bundle(copied)))


def _archive(path: Path, *names: str, attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("toy/LICENSE", *names):
            member = zipfile.ZipInfo(name)
            member.filename = name  # as it is, also where zipfile would mend it
            member.external_attr = attributes if name in names else 0
            archive.writestr(member, b"permission is granted")
    return path


@pytest.mark.parametrize(
    ("names", "attributes", "said"),
    [
        (["../escaped"], 0, "leaves its folder"),
        (["toy/../../escaped"], 0, "leaves its folder"),
        (["/escaped"], 0, "leaves its folder"),
        (["C:\\escaped"], 0, "leaves its folder"),
        (["toy/link"], LINK, "is a link"),
        (["other/file"], 0, "one folder"),
    ],
)
def test_a_wicked_archive_is_not_unpacked(
    names: list[str], attributes: int, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = _archive(folder / "toy.zip", *names, attributes=attributes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=said):
        verify_archive(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    path = _archive(tmp_path / "toy.zip")
    whole = path.read_bytes()
    for number, damaged in enumerate(
        (whole[: len(whole) // 2], b"a text", whole.replace(b"is granted", b"is refused"))
    ):
        path.write_bytes(damaged)
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(DataError, match="no readable zip archive"):
            unpack(path, place)
    path.write_bytes(whole)
    place = tmp_path / "whole"
    place.mkdir()
    assert unpack(path, place) == place / "toy"
    assert (place / "toy" / "LICENSE").read_bytes() == b"permission is granted"
