"""Pack a bundle into one archive that travels: weights, default pack, docs and the package itself.

    python tools/pack_bundle.py bundles/ssl_alpnet --output dist

Writes dist/ssl_alpnet_v0.1.0.zip, the same bytes for the same commit on every machine, and an entry
in dist/index.json. The bundle is checked first, as tools/verify_bundle.py does; that command with
the archive checks its use as well. Exits with 1 and one sentence if it cannot be packed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import fsmis_components
from bundle_checks import verify
from bundle_files import Bundle
from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import unwritable
from fsmis_components.packaging import content_hash
from pack_archive import bundle_files, others, packed_files, write_archive
from pack_index import entry, update_index

PACKAGE = Path(fsmis_components.__file__).resolve().parent
SHOWN = 5  # changed files that are named


class PackError(Exception):
    """The bundle cannot be packed; the message is one sentence that says what to do."""


def pack(root: Path, output: Path, verified: bool = True) -> Path:
    """Pack a bundle, enter it in the index, say both, and return the archive.

    Args:
        root: the bundle's folder.
        output: receives the archive and ``index.json``.
        verified: check the bundle first.

    Raises:
        PackError: it is no bundle of this project, fails its checks, or cannot be written.
    """
    root = root.resolve()
    bundle = _bundle(root)
    version, code = str(bundle.metadata["version"]), fsmis_components.__version__
    left = others(root)
    if left:
        print(f"left out: {', '.join(left)}")
    changed = uncommitted([root, PACKAGE])
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        print(f"not as committed, packed as it is: {', '.join(changed[:SHOWN])}{more}")
    if verified and not verify(root):
        raise PackError(f"{root.name} fails the checks above: mend it, or give --no_verify.")
    content = packed_files(root, PACKAGE, version, code)
    path = output / f"{root.name}_v{version}.zip"
    try:
        state = _write(path, root.name, content)
        data = path.read_bytes()
        commit = _git(root, "rev-parse", "HEAD") or None
        facts = {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "package": {"version": code, "content": content_hash(PACKAGE)},
            "commit": commit,
            "as_committed": not changed if commit else None,
            "verified": verified,
        }
        index = update_index(output, entry(root, bundle.metadata, path, facts))
    except OSError as error:
        raise PackError(
            str(unwritable(output, error, "name another folder with --output"))
        ) from error
    except ValueError as error:
        raise PackError(f"{error}: name another folder with --output.") from error
    print(f"{path}: {len(data) / 1e6:.1f} MB, sha256 {facts['sha256']}, {state}")
    print(f"{index}: has its entry")
    return path


def _bundle(root: Path) -> Bundle:
    bundle = Bundle(root)
    if not (root / "configs" / "metadata.json").is_file():
        raise PackError(f"{root} is no bundle (no configs/metadata.json): name a bundle's folder.")
    if (root / PACKAGE.name).exists():
        raise PackError(f"{root} is packed already: pack the bundle of the repository.")
    try:
        named, ours = "version" in bundle.metadata, bundle.is_ours
    except (json.JSONDecodeError, ValueError) as error:
        raise PackError(f"{root}/configs/metadata.json is not JSON ({error}): mend it.") from error
    if not named or not ours:
        raise PackError(
            f"{root} has no version, or does not use {PACKAGE.name}: name one of bundles/."
        )
    for path in bundle_files(root).values():
        if path.is_symlink():
            raise PackError(f"{path} is a link, which does not survive packing: copy the file.")
    return bundle


def _write(path: Path, folder: str, content: dict[str, bytes]) -> str:
    """Write the archive, or find it written; return which of the two."""
    if path.exists():
        before = path.read_bytes()
        again = path.with_name(f".{path.name}.again")
        try:
            write_archive(again, folder, content)
            if again.read_bytes() != before:
                raise PackError(
                    f"{path} exists with other content: give metadata.json a new version, or "
                    "remove the file."
                )
        finally:
            again.unlink(missing_ok=True)
        return "there already with the same content"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda unfinished: write_archive(unfinished, folder, content))
    return "written"


def uncommitted(places: list[Path]) -> list[str]:
    """Return the files at some places that git has otherwise or not at all; none without git."""
    said = _git(places[0], "status", "--porcelain", "--untracked-files=all", "--", *places)
    return [line.split(maxsplit=1)[1] for line in said.splitlines()]


def _git(place: Path, *arguments: str | Path) -> str:
    command = ["git", "-C", str(place), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # there is no git: an unpacked source archive
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    """Return 0 if the bundle named on the command line was packed."""
    parser = argparse.ArgumentParser(description="Pack a bundle into one archive.")
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="receives the archive")
    parser.add_argument(
        "--no_verify", action="store_true", help="pack a draft unchecked; the index says so"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        pack(arguments.bundle, arguments.output, not arguments.no_verify)
    except PackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
