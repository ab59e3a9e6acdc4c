"""One writer at a time, by locks that the system releases when a process ends or is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fsmis_components.data.errors import DataError, unwritable

_NAME = ".writing"  # stays there, empty


def lock_folder(folder: Path) -> FileLock:
    """Make a folder and become the one that writes there, until the lock is released.

    Raises:
        DataError: another run writes there, or the folder cannot be made or written.
    """
    lock = FileLock(folder / _NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{folder}: another run is writing there; wait until it has ended, or choose another "
            "--output_dir (nothing was overwritten)."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    return lock


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Be the one that writes into a folder inside the `with` block; errors as `lock_folder`."""
    lock = lock_folder(folder)
    try:
        yield
    finally:
        lock.release()
