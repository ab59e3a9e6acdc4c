"""The stamp of a packed bundle: which content of this package it was packed with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fsmis_components.data.errors import DataError
from fsmis_components.data.json_text import parse_json

# lies in the copy of the package that a packed bundle carries; the repository has none
STAMP = "packed.json"


@dataclass(frozen=True)
class PackageStamp:
    """What a bundle was packed with."""

    bundle: str  # its name
    bundle_version: str
    package_version: str
    content: str  # `content_hash` of the copy of this package

    @classmethod
    def of_bundle(cls, bundle_root: Path) -> PackageStamp | None:
        """The stamp of a packed bundle; None for a folder of the repository.

        One that cannot be read is a `DataError`.
        """
        path = bundle_root / "fsmis_components" / STAMP
        if not path.is_file():
            return None
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            return cls(**{name: str(content[name]) for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a stamp of a packed bundle; unpack the bundle's archive again."
            ) from error

    def text(self) -> str:
        """The content of the stamp's file: the same text for the same stamp."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def package_files(package: Path) -> list[Path]:
    """What travels of the package at `package`, in an order that is the same everywhere."""
    found = [*package.rglob("*.py"), *package.rglob("templates/*.*"), *package.glob("py.typed")]
    return sorted(found, key=lambda path: path.relative_to(package).as_posix())


def content_hash(package: Path) -> str:
    """SHA-256 over names and bytes of `package_files`, wherever the package lies."""
    digest = hashlib.sha256()
    for path in package_files(package):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()
