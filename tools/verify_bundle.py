"""Check any MONAI bundle, a folder or a zip archive, offline, one line per check.

    python tools/verify_bundle.py bundles/ssl_alpnet
    python tools/verify_bundle.py dist/ssl_alpnet_v0.1.0.zip

An archive is looked through before it is unpacked into a temporary folder. One of
tools/pack_bundle.py is then used there as its reader will use it, with the repository out of
Python's sight. Checks run what the bundle's configs say: give --static for a bundle that you do not
trust.

Exits with 1 if a check fails; a line that begins with "note" is advice. Runs in the environment
that tools/test.py makes.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

from bundle_archive import ArchiveError, check_archive, unpack
from bundle_checks import Say, tell, verify
from pack_use import is_packed, verify_packed


def verify_archive(path: Path, say: Say = print, static: bool = False) -> bool:
    """Check an archive and the bundle in it; nothing is written outside a temporary folder."""
    problems = check_archive(path)
    if problems:
        for problem in problems[:5]:
            tell(say, "archive", problem)
        return False
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as folder:
        place = Path(folder).resolve() / "unpacked"
        place.mkdir()
        try:
            root = unpack(path, place)
        except ArchiveError as error:
            tell(say, "archive", str(error))
            return False
        tell(say, "archive", "ok")
        return verify_folder(root, say, static, path)


def verify_folder(
    root: Path, say: Say = print, static: bool = False, archive: Path | None = None
) -> bool:
    """Check a folder; a packed bundle by the copy of the package that it carries."""
    if not is_packed(root):
        return verify(root, say, static)
    return verify_packed(root, say, static, archive)


def main() -> int:
    """Return 0 if the bundle named on the command line passes every check."""
    parser = argparse.ArgumentParser(description="Check a bundle, one line per check.")
    parser.add_argument("bundle", type=Path, help="a bundle's folder, or its zip archive")
    parser.add_argument("--static", action="store_true", help="run nothing of the bundle")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if arguments.bundle.is_file():
        return int(not verify_archive(arguments.bundle, static=arguments.static))
    if not arguments.bundle.is_dir():
        parser.error(f"there is no folder or archive {arguments.bundle}")
    check = verify if arguments.here else verify_folder
    return int(not check(arguments.bundle, static=arguments.static))


if __name__ == "__main__":
    sys.exit(main())
