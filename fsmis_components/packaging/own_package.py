"""The package as configs get it: a packed bundle is run with its own content of it, or not at all.

Python has one `fsmis_components` per process. A packed bundle carries a copy, so a process may
already hold another one: an installed package, or the copy of another bundle. The same content
serves; any other is refused in words, also under the same version, as results would differ in
silence. What this module imports is little: another content must be told before it fails.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import fsmis_components
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.knobs import check_path
from fsmis_components.data.safe_text import parse_json
from fsmis_components.packaging.request_values import refuse_code_of_requests

# lies in the copy of the package that a packed bundle carries; the repository has none
STAMP = "packed.json"
_SHOWN = 12  # digits of a hash in a message


@exit_on_data_error
def own_package(bundle_root: str | Path, modules: Iterable[str] = ()) -> ModuleType:
    """Return `fsmis_components`, for expressions of a config.

    It is the first thing that a config evaluates, so it also asks `refuse_code_of_requests`. Parts
    of the package that expressions use, such as "data.weights", are imported.

    A bundle without stamp, that is one in the repository, takes the package that is installed. The
    bundle's own copy is taken as it is: who edits it means it.

    Raises:
        SystemExit: `bundle_root` is no path, or the bundle was packed with another content of the
            package than the imported one.
        CodeInRequest: a server's client put code into the config.
    """
    check_path("bundle_root", bundle_root)
    root = Path(bundle_root)
    refuse_code_of_requests(root)
    stamp = PackageStamp.of_bundle(root)
    imported = Path(fsmis_components.__file__).resolve().parent
    if stamp is not None and imported != (root / imported.name).resolve():
        content = content_hash(imported)
        if content != stamp.content:
            raise DataError(
                f"bundle {stamp.bundle} {stamp.bundle_version} was packed with fsmis_components "
                f"{stamp.package_version} (content {stamp.content[:_SHOWN]}), but "
                f"{fsmis_components.__version__} (content {content[:_SHOWN]}) from {imported} is "
                f"imported: run the bundle in a Python process of its own, started in "
                f"{root.resolve()}."
            )
    for name in modules:
        importlib.import_module(f"{fsmis_components.__name__}.{name}")
    return fsmis_components


@dataclass(frozen=True)
class PackageStamp:
    """What a bundle was packed with."""

    bundle: str  # its name
    bundle_version: str
    package_version: str
    content: str  # `content_hash` of the copy of this package

    @classmethod
    def of_bundle(cls, bundle_root: Path) -> PackageStamp | None:
        """The stamp of a packed bundle, or a `DataError`; None for a folder of the repository."""
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
