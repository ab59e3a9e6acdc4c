"""Pack a bundle into one archive that travels: weights, default pack, docs and the package itself.

    python tools/pack_bundle.py bundles/ssl_alpnet --output dist

Writes dist/ssl_alpnet_v0.2.0.zip, the same bytes for the same commit on every machine. The bundle
is checked first, as tools/verify_bundle.py does; that command with the archive checks its use too.
Exits with 1 and one sentence if it cannot be packed.
"""

from __future__ import annotations

import hashlib
import io
import logging
import stat
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import fsmis_components
from fsmis_components.commands.command_line import command
from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import DataError, writing
from fsmis_components.packaging import STAMP, PackageStamp, content_hash, package_files
from verify_bundle import read_metadata, verify

PACKAGE = Path(fsmis_components.__file__).resolve().parent
# what a bundle consists of; all else in its folder was made by using it
PARTS = ("LICENSE", "large_files.yml", "configs", "docs", "models")
# models/previous is what MONAI Label's training set aside, monailabel_train.json what it was told
LEFT_OUT = {"previous", "eval", "outputs", "__pycache__", "monailabel_train.json"}


def pack(bundle: Path, output: Path = Path("dist"), no_verify: bool = False) -> list[str]:
    """Pack a bundle and say where.

    Args:
        bundle: a bundle's folder.
        output: receives the archive.
        no_verify: pack a draft unchecked.

    Returns:
        The problems that its checks found, a sentence each; then nothing is written.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    root = bundle.resolve()
    version, code = _version(root), fsmis_components.__version__
    left = [p.name for p in root.iterdir() if p.name not in PARTS and not p.name.startswith(".")]
    if left:
        print(f"left out: {', '.join(sorted(left))}")
    if problems := [] if no_verify else verify(root):
        return [*problems, f"{root.name} fails its checks: mend it, or give --no_verify."]
    path = output / f"{root.name}_v{version}.zip"
    data = _archived(root.name, packed_files(root, PACKAGE, version, code))
    with writing(output, "name another folder with --output"):
        if path.exists() and path.read_bytes() != data:
            raise DataError(
                f"{path} exists with other content: give metadata.json a new version, or remove "
                "the file."
            )
        atomic_write(path, lambda unfinished: unfinished.write_bytes(data))
    print(f"{path}: {len(data) / 1e6:.1f} MB, sha256 {hashlib.sha256(data).hexdigest()}")
    return []


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


def _archived(folder: str, content: Mapping[str, bytes]) -> bytes:
    """Return the archive of files in one folder.

    Nothing is compressed: weights hardly shrink, and what a compressor writes depends on its
    version, so that the same commit would not give the same bytes on every machine.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            # the earliest time that a zip archive can tell, and the same rights everywhere
            member = zipfile.ZipInfo(f"{folder}/{name}", (1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # Unix
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, content[name])
    return made.getvalue()


def _version(root: Path) -> str:
    """Return the version of a bundle that can be packed."""
    configs = root / "configs"
    if not (configs / "metadata.json").is_file():
        raise DataError(f"{root} is no bundle (no configs/metadata.json): name a bundle's folder.")
    if (root / PACKAGE.name).exists():
        raise DataError(f"{root} is packed already: pack the bundle of the repository.")
    try:
        version = read_metadata(root).get("version")
    except ValueError as error:
        raise DataError(f"{configs}/metadata.json is not JSON ({error}): mend it.") from error
    if not version or not any(PACKAGE.name in p.read_text() for p in configs.glob("*.json")):
        raise DataError(
            f"{root} has no version, or does not use {PACKAGE.name}: name one of bundles/."
        )
    for path in bundle_files(root).values():
        if path.is_symlink():
            raise DataError(f"{path} is a link, which does not survive packing: copy the file.")
    return str(version)


if __name__ == "__main__":
    sys.exit(command(pack))
