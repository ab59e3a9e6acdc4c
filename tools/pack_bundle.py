"""Pack a bundle into one archive that travels: weights, default pack, docs and the package itself.

    python tools/pack_bundle.py bundles/ssl_alpnet --output dist

Writes dist/ssl_alpnet_v0.2.0.zip, the same bytes for the same commit on every machine, and an entry
in dist/index.json. The bundle is checked first, as tools/verify_bundle.py does; that command with
the archive checks its use as well. Exits with 1 and one sentence if it cannot be packed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsmis_components
from bundle_checks import Bundle, verify
from fsmis_components.commands.command_line import command
from fsmis_components.data.atomic import atomic_write, atomic_write_text
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.safe_text import parse_json
from fsmis_components.packaging import STAMP, PackageStamp, content_hash, package_files

PACKAGE = Path(fsmis_components.__file__).resolve().parent
# what a bundle consists of; all else in its folder was made by using it
PARTS = ("LICENSE", "large_files.yml", "configs", "docs", "models")
# models/previous is what MONAI Label's training set aside, monailabel_train.json what it was told
LEFT_OUT = {"previous", "eval", "outputs", "__pycache__", "monailabel_train.json"}
INDEX, FORMAT = "index.json", 1


def pack(bundle: Path, output: Path = Path("dist"), no_verify: bool = False) -> Path:
    """Pack a bundle, enter it in the index, say both, and return the archive.

    Args:
        bundle: a bundle's folder.
        output: receives the archive and `index.json`.
        no_verify: pack a draft unchecked; the index says so.

    Raises:
        DataError: it is no bundle of this project, fails its checks, or cannot be written.
    """
    warnings.simplefilter("ignore")
    root = bundle.resolve()
    metadata = _metadata(root)
    version, code = str(metadata["version"]), fsmis_components.__version__
    left = [p.name for p in root.iterdir() if p.name not in PARTS and not p.name.startswith(".")]
    if left:
        print(f"left out: {', '.join(sorted(left))}")
    if not no_verify and not verify(root):
        raise DataError(f"{root.name} fails the checks above: mend it, or give --no_verify.")
    path = output / f"{root.name}_v{version}.zip"
    with writing(output, "name another folder with --output"):
        state = _write(path, root.name, packed_files(root, PACKAGE, version, code))
        facts = {
            "name": root.name,
            "version": version,
            "file": path.name,
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "package": {"version": code, "content": content_hash(PACKAGE)},
            "verified": not no_verify,
            **{key: metadata[key] for key in ("task", "description", "copyright")},
        }
        index = update_index(output, facts)
    print(f"{path}: {facts['size'] / 1e6:.1f} MB, sha256 {facts['sha256']}, {state}")
    print(f"{index}: has its entry")
    return path


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


def _metadata(root: Path) -> dict[str, Any]:
    if not (root / "configs" / "metadata.json").is_file():
        raise DataError(f"{root} is no bundle (no configs/metadata.json): name a bundle's folder.")
    if (root / PACKAGE.name).exists():
        raise DataError(f"{root} is packed already: pack the bundle of the repository.")
    bundle = Bundle(root)
    try:
        named = "version" in bundle.metadata
    except ValueError as error:
        raise DataError(f"{root}/configs/metadata.json is not JSON ({error}): mend it.") from error
    if not named or not bundle.is_ours:
        raise DataError(
            f"{root} has no version, or does not use {PACKAGE.name}: name one of bundles/."
        )
    for path in bundle_files(root).values():
        if path.is_symlink():
            raise DataError(f"{path} is a link, which does not survive packing: copy the file.")
    return bundle.metadata


def _write(path: Path, folder: str, content: Mapping[str, bytes]) -> str:
    """Write the archive, or find it written; return which of the two.

    Nothing is compressed: weights hardly shrink, and what a compressor writes depends on its
    version, so that the same commit would not give the same bytes on every machine.
    """

    def write(unfinished: Path) -> None:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(content):
                # the earliest time that a zip archive can tell, and the same rights everywhere
                member = zipfile.ZipInfo(f"{folder}/{name}", (1980, 1, 1, 0, 0, 0))
                member.create_system = 3  # Unix
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(member, content[name])

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, write)
        return "written"
    again = path.with_name(f".{path.name}.again")
    try:
        write(again)
        if again.read_bytes() != path.read_bytes():
            raise DataError(
                f"{path} exists with other content: give metadata.json a new version, or remove "
                "the file."
            )
    finally:
        again.unlink(missing_ok=True)
    return "there already with the same content"


def update_index(folder: Path, new: dict[str, Any]) -> Path:
    """Put an entry into the index of a folder; one of the same name and version is replaced.

    Raises:
        DataError: there is an index, but not one of ours.
    """
    path = folder / INDEX
    bundles = []
    if path.exists():
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            bundles = content["bundles"] if content["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            bundles = None
        if bundles is None:
            raise DataError(f"{path} is no index of bundles: name another folder with --output.")
    key = (new["name"], new["version"])
    bundles = [each for each in bundles if (each["name"], each["version"]) != key] + [new]
    bundles.sort(key=lambda each: (each["name"], each["version"]))
    text = json.dumps({"format": FORMAT, "bundles": bundles}, indent=2, ensure_ascii=False)
    return atomic_write_text(path, text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if the bundle named on the command line was packed."""
    logging.disable(logging.CRITICAL)
    return command(pack, arguments)


if __name__ == "__main__":
    sys.exit(main())
