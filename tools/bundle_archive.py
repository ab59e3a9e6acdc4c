"""Look into a bundle's archive before anything of it is written to disk, then unpack it."""

from __future__ import annotations

import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

# a bundle of the model zoo has some ten files and up to some gigabytes of weights, which hardly
# shrink; what goes far beyond is broken or meant to fill the disk
MOST_FILES = 10_000
MOST_BYTES = 20e9
LARGEST_RATIO = 100  # unpacked to packed, above RATIO_MATTERS
RATIO_MATTERS = 100e6
# what zipfile raises for damaged archives
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)


class ArchiveError(Exception):
    """The archive cannot be unpacked; the message says why."""


def check_archive(path: Path) -> list[str]:
    """Return what speaks against unpacking an archive; nothing is written."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGED as error:
        return [f"{path.name} is not a readable zip archive ({error}): download or pack it again"]
    problems = [problem for member in members if (problem := _unsafe(member))]
    if problems:
        return problems
    return [*_too_large(members, path), *_not_one_folder(members)]


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive that `check_archive` let pass into an empty folder; return the bundle's.

    Raises:
        ArchiveError: a file is damaged, or does not fit on the disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            free = shutil.disk_usage(folder).free
            size = sum(member.file_size for member in archive.infolist())
            if size > free:
                raise ArchiveError(f"needs {size / 1e6:.0f} MB, {free / 1e6:.0f} are free")
            archive.extractall(folder)
    except _DAMAGED as error:
        raise ArchiveError(f"cannot be unpacked ({error}): download or pack it again") from error
    [root] = folder.iterdir()
    return root


def _unsafe(member: zipfile.ZipInfo) -> str:
    # the name as it stands in the file: on Windows zipfile turns backslashes into slashes
    name = member.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ":" in name or "\0" in name:
        return f"{name!r} is no relative path: such an archive is not unpacked"
    if ".." in parts or not parts:
        return f"{name!r} leaves its folder: such an archive is not unpacked"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{name!r} is a link or a special file: such an archive is not unpacked"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"{name!r} is packed by a method of its own: pack it as zip programs do"
    if member.flag_bits & 1:
        return f"{name!r} is encrypted: pack it without a password"
    return ""


def _too_large(members: list[zipfile.ZipInfo], path: Path) -> list[str]:
    size = sum(member.file_size for member in members)
    if len(members) > MOST_FILES or size > MOST_BYTES:
        return [
            f"{len(members)} files of {size / 1e9:.1f} GB in all are no bundle: it is not unpacked"
        ]
    ratio = size / max(path.stat().st_size, 1)
    if size > RATIO_MATTERS and ratio > LARGEST_RATIO:
        return [f"it grows {ratio:.0f} times when unpacked, as no weights do: it is not unpacked"]
    return []


def _not_one_folder(members: list[zipfile.ZipInfo]) -> list[str]:
    files = [PurePosixPath(m.orig_filename) for m in members if not m.is_dir()]
    # one file on a disk that does not tell capitals, or ways to write an accent, apart
    names = {unicodedata.normalize("NFC", str(path)).casefold() for path in files}
    if len(names) < len(files):
        return [f"{len(files) - len(names)} files have a name that occurs twice: pack it again"]
    folders = {PurePosixPath(m.orig_filename).parts[0] for m in members}
    if len(folders) != 1 or not files or any(len(path.parts) < 2 for path in files):
        return [f"it holds {sorted(folders)} at its top, MONAI expects one folder: pack that one"]
    return []
