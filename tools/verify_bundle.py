"""Check a bundle of this package, a folder or a zip archive, offline, one line per check.

    python tools/verify_bundle.py bundles/ssl_alpnet
    python tools/verify_bundle.py dist/ssl_alpnet_v0.2.0.zip

An archive is unpacked into a temporary folder. One of tools/pack_bundle.py is then used there as
its reader will use it, with the repository out of Python's sight. Checks run what the bundle's
configs say: give --static for a bundle that you do not trust.

Exits with 1 if a check fails. Runs in the environment that tools/test.py makes.
"""

from __future__ import annotations

import logging
import shutil
import stat
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from bundle_checks import verify
from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError
from pack_use import is_packed, verify_packed

Say = Callable[[str], object]


def verify_bundle(bundle: Path, static: bool = False, here: bool = False) -> list[str]:
    """Check a bundle, one line per check.

    Args:
        bundle: a bundle's folder, or its zip archive.
        static: run nothing of the bundle.
        here: by the package that is imported here, also for a packed bundle.

    Raises:
        DataError: there is no such folder or archive, or it is not to be unpacked.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if bundle.is_file():
        passed = verify_archive(bundle, static=static)
    elif bundle.is_dir():
        passed = (verify if here else verify_folder)(bundle, static=static)
    else:
        raise DataError(f"there is no folder or archive {bundle}.")
    return [] if passed else [f"{bundle.name}: has the problems above; mend them."]


def verify_archive(path: Path, say: Say = print, static: bool = False) -> bool:
    """Check an archive and the bundle in it; nothing is written outside a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as folder:
        root = unpack(path, Path(folder).resolve())
        return verify_folder(root, say, static, path)


def verify_folder(
    root: Path, say: Say = print, static: bool = False, archive: Path | None = None
) -> bool:
    """Check a folder; a packed bundle by the copy of the package that it carries."""
    if not is_packed(root):
        return verify(root, say, static)
    return verify_packed(root, say, static, archive)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive of one folder into an empty folder, and return the bundle's.

    Raises:
        DataError: the archive is damaged, too large, or holds what would leave the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.orig_filename
                kind = stat.S_IFMT(member.external_attr >> 16)
                if (
                    name.startswith("/")
                    or ".." in PurePosixPath(name).parts
                    or set(name) & set("\\:")
                ):
                    raise DataError(f"{path}: {name!r} leaves its folder: it is not unpacked.")
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{path}: {name!r} is a link or device: it is not unpacked.")
            size = sum(member.file_size for member in archive.infolist())
            if size > shutil.disk_usage(folder).free:
                raise DataError(f"{path}: {size / 1e9:.1f} GB do not fit on the disk; make space.")
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: no readable zip archive ({error}); pack it again.") from error
    roots = list(folder.iterdir())
    if len(roots) != 1 or not roots[0].is_dir():
        raise DataError(f"{path}: MONAI expects one folder in an archive; pack that one.")
    return roots[0]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if the bundle named on the command line passes every check."""
    return command(verify_bundle, arguments)


if __name__ == "__main__":
    sys.exit(main())
