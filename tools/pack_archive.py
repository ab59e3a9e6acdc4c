"""Write a bundle and a copy of the package as one archive: same content, same bytes."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fsmis_components.packaging import STAMP, PackageStamp, content_hash, package_files

# what a bundle consists of; all else in its folder was made by using it
PARTS = ("LICENSE", "large_files.yml", "configs", "docs", "models")
# models/previous is what MONAI Label's training set aside, monailabel_train.json what it was told
LEFT_OUT = {"previous", "eval", "outputs", "__pycache__", "monailabel_train.json"}
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can tell
_UNIX = 3
_MODE = (stat.S_IFREG | 0o644) << 16


def bundle_files(root: Path) -> dict[str, Path]:
    """Return the files of a bundle that are packed, by their names in it."""
    found = {}
    for part in PARTS:
        top = root / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = path.relative_to(root)
            unwanted = any(name.startswith(".") or name in LEFT_OUT for name in relative.parts)
            if path.is_file() and not unwanted and path.suffix != ".pyc":
                found[relative.as_posix()] = path
    return found


def others(root: Path) -> list[str]:
    """Return what lies in a bundle's folder, by name at its top, and is not packed."""
    return sorted(
        path.name
        for path in root.iterdir()
        if path.name not in PARTS and not path.name.startswith(".")
    )


def packed_files(root: Path, package: Path, version: str, package_version: str) -> dict[str, bytes]:
    """Return the content of an archive: the bundle, the package and the stamp.

    Args:
        root: the bundle's folder.
        package: the folder of ``fsmis_components``.
        version: of the bundle.
        package_version: of the package.
    """
    content = {name: path.read_bytes() for name, path in bundle_files(root).items()}
    for path in package_files(package):
        content[f"{package.name}/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    stamp = PackageStamp(root.name, version, package_version, content_hash(package))
    content[f"{package.name}/{STAMP}"] = stamp.text().encode()
    return content


def write_archive(path: Path, folder: str, content: Mapping[str, bytes]) -> None:
    """Write files into an archive, below one folder.

    Nothing is compressed: weights hardly shrink, and what a compressor writes depends on its
    version, so that the same commit would not give the same bytes on every machine.

    Args:
        path: the archive.
        folder: name of the folder in it.
        content: bytes by name in that folder.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            member = zipfile.ZipInfo(f"{folder}/{name}", _NO_TIME)
            member.create_system = _UNIX
            member.external_attr = _MODE
            archive.writestr(member, content[name])
