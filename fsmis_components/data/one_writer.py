"""One writer at a time, by locks that the system releases when a process ends or is killed."""

from __future__ import annotations

import errno
import logging
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fsmis_components.data.errors import DataError

logger = logging.getLogger(__name__)

_NAME = ".writing"
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class HeldLock:
    """A locked file, from `take_lock`; it is there as long as the lock is held.

    Args:
        path: the file.
        file: the same, open.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        _held.add(self)

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._file.closed:
            return
        if os.name == "posix":
            self.path.unlink(missing_ok=True)
        self._close()
        if os.name != "posix":  # Windows removes no file that is open
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:
                logger.debug("%s: another process holds it now", self.path)

    def _close(self) -> None:
        _held.discard(self)
        self._file.close()


def take_lock(path: Path) -> HeldLock | None:
    """Lock a file, which is made for this.

    Args:
        path: the file; its folder exists.

    Returns:
        None where another process, or another part of this one, holds it.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        file = path.open("ab")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _BUSY:
                file.close()
                return None
            # network folders without locks: there the user has to take care
            logger.warning(
                "%s: the folder knows no locks (%s); let one run at a time write there.",
                path.parent,
                error.strerror,
            )
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return HeldLock(path, file)
        except FileNotFoundError:
            pass  # as below
        file.close()  # its former holder removed it after it was opened here


def lock_folder(folder: Path) -> HeldLock:
    """Make a folder and become the one that writes there.

    Raises:
        DataError: another run writes there, or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / _NAME)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be made or written ({error.strerror or error}); choose "
            "another --output_dir."
        ) from error
    if lock is None:
        raise DataError(
            f"{folder}: another run is writing there; wait until it has ended, or choose another "
            "--output_dir (nothing was overwritten)."
        )
    return lock


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Be the one that writes into a folder inside the `with` block; errors as `lock_folder`."""
    lock = lock_folder(folder)
    try:
        yield
    finally:
        lock.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_held: weakref.WeakSet[HeldLock] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    for lock in tuple(_held):
        lock._close()


if hasattr(os, "register_at_fork"):
    # else a data loader's worker would hold the lock of a main process that was killed
    os.register_at_fork(after_in_child=_leave_to_the_parent)
