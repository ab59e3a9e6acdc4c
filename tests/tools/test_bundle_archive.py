from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import bundle_archive
from bundle_archive import ArchiveError, check_archive, unpack
from verify_bundle import verify_archive

LINK = (stat.S_IFLNK | 0o777) << 16


def _archive(path: Path, *names: str, attributes: int = 0, data: bytes = b"text") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("toy/LICENSE", *names):
            member = zipfile.ZipInfo(name)
            member.filename = name  # as it is, also where zipfile would mend it
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = attributes if name in names else 0
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["../escaped"], "leaves its folder"),
        (["toy/../../escaped"], "leaves its folder"),
        (["/escaped"], "no relative path"),
        (["C:\\escaped"], "no relative path"),
        (["toy\\..\\escaped"], "no relative path"),
        (["other/file"], "['other', 'toy'] at its top"),
        (["escaped"], "['escaped', 'toy'] at its top"),
        (["other/"], "['other', 'toy'] at its top"),
        (["toy/license"], "occurs twice"),
        (["toy/./LICENSE"], "occurs twice"),
        (["toy//LICENSE"], "occurs twice"),
        (["toy/\u00e9", "toy/e\u0301"], "occurs twice"),
        (["toy/a\0b"], "no relative path"),
    ],
)
def test_a_wicked_archive_is_not_unpacked(names: list[str], said: str, tmp_path: Path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = _archive(folder / "toy.zip", *names)
    before = sorted(tmp_path.rglob("*"))
    lines: list[str] = []
    assert not verify_archive(path, lines.append)
    assert len(lines) == 1 and lines[0].strip().startswith("archive: ") and said in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_special_files_are_refused(tmp_path: Path):
    path = _archive(tmp_path / "toy.zip", "toy/link", attributes=LINK, data=b"/etc/passwd")
    assert "'toy/link' is a link" in check_archive(path)[0]


def test_only_the_usual_ways_to_pack_are_unpacked(tmp_path: Path):
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/LICENSE", "text", zipfile.ZIP_LZMA)
    assert "packed by a method of its own" in check_archive(path)[0]


def test_an_archive_with_any_byte_changed_is_refused_in_words_or_whole(tmp_path: Path):
    path = _archive(tmp_path / "toy.zip", "toy/\u00e9", data=b"a text that shrinks, shrinks " * 9)
    whole = path.read_bytes()
    outcomes = set()
    for place in range(len(whole)):
        for value in (whole[place] ^ 1, whole[place] ^ 128, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            if check_archive(path):
                outcomes.add("refused")
                continue
            folder = tmp_path / f"{place}_{value}"
            folder.mkdir()
            try:
                unpack(path, folder)
            except ArchiveError:
                outcomes.add("damaged")
            else:
                outcomes.add("unpacked")
    assert outcomes == {"refused", "damaged", "unpacked"}


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _archive(tmp_path / "toy.zip", "toy/zeros", data=bytes(1_000_000))
    assert not check_archive(path), "a megabyte of zeros is no bomb"
    with monkeypatch.context() as patch:
        patch.setattr(bundle_archive, "RATIO_MATTERS", 1e5)
        assert "times when unpacked" in check_archive(path)[0]
    with monkeypatch.context() as patch:
        patch.setattr(bundle_archive, "MOST_BYTES", 1.5e6)
        assert "are no bundle" in check_archive(path)[0]
    monkeypatch.setattr(bundle_archive, "MOST_FILES", 1)
    assert "2 files of" in check_archive(path)[0]


def _text(path: Path) -> None:
    path.write_text("a text")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_text, _half])
def test_what_is_no_archive_is_said(damage: Callable[[Path], None], tmp_path: Path):
    path = _archive(tmp_path / "toy.zip")
    damage(path)
    assert "not a readable zip archive" in check_archive(path)[0]


def test_a_changed_byte_is_found_while_unpacking(tmp_path: Path):
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/LICENSE", b"permission is granted")
    path.write_bytes(path.read_bytes().replace(b"is granted", b"is refused"))
    assert not check_archive(path)
    with pytest.raises(ArchiveError, match="LICENSE"):
        unpack(path, tmp_path)


def test_unpack_gives_the_inner_folder(tmp_path: Path):
    path = _archive(tmp_path / "toy.zip", "toy/configs/a.json")
    place = tmp_path / "place"
    place.mkdir()
    root = unpack(path, place)
    assert root == place / "toy" and (root / "configs" / "a.json").read_bytes() == b"text"
