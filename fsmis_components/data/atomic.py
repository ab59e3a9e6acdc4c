"""Writing into a folder: by one process at a time, and files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from fsmis_components.data.errors import DataError, exit_on_data_error, unwritable, writing

_LOCK = ".writing"  # stays in the folder, empty
_UNFINISHED = re.compile(r"\.[0-9a-f]{12}\.(?P<name>.+)")


def atomic_write(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file so that a reader, an interruption or a power cut never leaves half of it.

    Folders above it are made, an existing file is replaced; where that fails by an OSError, what
    was there before is untouched. `write` makes the file under a hidden name in the same folder,
    with the ending of `path`, by which some libraries choose the format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name.lower()}")
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


@exit_on_data_error
def check_writable(folder: str | Path, another: str = "choose another --output_dir") -> None:
    """Try to write where a folder is or will be, before work is done whose result would be lost.

    Nothing is made or left behind. `another` says how another folder is named. Where nothing can be
    written it is a SystemExit.
    """
    place = Path(folder).absolute()
    with writing(folder, another):
        there = next(path for path in (place, *place.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what a killed process left of these files; no other process may be writing them."""
    expected = {(path.parent, path.name.lower()) for path in paths}
    for folder in {folder for folder, _ in expected if folder.is_dir()}:
        for entry in list(folder.iterdir()):
            unfinished = _UNFINISHED.fullmatch(entry.name)
            if unfinished and (folder, unfinished["name"]) in expected:
                entry.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> Path:
    """Write a text in UTF-8; arguments and errors as `atomic_write`."""
    return atomic_write_bytes(path, text.encode())


def atomic_write_bytes(path: Path, content: bytes | memoryview, private: bool = False) -> Path:
    """Write bytes, if `private` so that only the user may read them; errors as `atomic_write`.

    Also for PyTorch and safetensors: their own writers make other errors of a full disk.
    """

    def write(unfinished: Path) -> None:
        unfinished.touch(mode=0o600 if private else 0o666)
        unfinished.write_bytes(content)

    return atomic_write(path, write)


def lock_folder(folder: Path) -> AcquireReturnProxy:
    """Make a folder and become the one that writes there, for a `with` block or until `release`.

    The system releases the lock where a process ends. That another run writes there, or that the
    folder cannot be made, is a `DataError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / _LOCK).acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{folder}: another run is writing there; wait until it has ended, or choose another "
            "--output_dir (nothing was overwritten)."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
