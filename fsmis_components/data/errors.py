"""Errors about the user's data, told as one sentence."""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])
LOG = "errors.log"
_SHOWN = 300  # characters of a foreign message
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # or this user's share of it
_DENIED = (errno.EACCES, errno.EPERM)
_MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")
# PyTorch raises a plain RuntimeError where the memory of the CPU is used up
_CPU_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")


class DataError(ValueError):
    """The user's data or arguments are unusable.

    The message is one sentence: the file or argument, what is wrong with it, what to do about it.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(str(sentence).split()))


_ANOTHER = "choose another --output_dir"


def unwritable(place: str | Path, error: OSError, another: str = _ANOTHER) -> DataError:
    """The error about what cannot be written; `another` says how another place is named."""
    if error.errno in _DISK_IS_FULL:
        advice = "free some space and give the same command again"
    elif error.errno == errno.ENAMETOOLONG:
        advice = f"its name is too long: shorten it, or {another}"
    elif error.errno in (*_DENIED, errno.EROFS):
        advice = f"get the right to write there, or {another}"
    else:
        advice = another
    return DataError(f"{place}: cannot be written ({error.strerror or error}); {advice}.")


@contextmanager
def writing(place: str | Path, another: str = _ANOTHER) -> Iterator[None]:
    """Tell an OSError of the body as `unwritable` does; arguments as there."""
    try:
        yield
    except OSError as error:
        raise unwritable(place, error, another) from error


def unreadable(place: str | Path, error: OSError) -> DataError:
    """The error about a file or folder that is there but cannot be opened."""
    denied = error.errno in _DENIED
    advice = "get the right to read it" if denied else "check the disk and copy it again"
    return DataError(f"{place}: cannot be read ({error.strerror or error}); {advice}.")


def needed(package: str, sentence: str) -> Any:
    """Import a package where it is used; where it is missing, the sentence is the error."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(sentence) from error


def exit_on_data_error(entry: T) -> T:
    """Let an entry that configs name end the command with the sentence of a `DataError`.

    MONAI turns a ValueError into sixty lines of traceback but lets SystemExit pass, whose message
    Python prints as the last line, with exit code 1. Of a class it is the constructor.
    """
    if inspect.isclass(entry):
        entry.__init__ = exit_on_data_error(entry.__init__)  # type: ignore[method-assign]
        return entry

    @functools.wraps(entry)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return entry(*args, **kwargs)
        except DataError as error:
            raise SystemExit(str(error)) from error

    return guarded  # type: ignore[return-value]


@contextmanager
def errors_of_commands() -> Iterator[None]:
    """What ends a command by a sentence is an error for who calls from Python."""
    try:
        yield
    except SystemExit as error:
        raise DataError(str(error)) from error


def failure_sentence(error: Exception, source: Path, folder: Path) -> str:
    """The reason for a table, as one sentence, while the error is being handled.

    A `DataError` has its own sentence. The traceback of an unforeseen error is appended to
    `errors.log` in the folder.
    """
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK_IS_FULL:
        return str(unwritable(f"{source}: its results", error))
    kind, text = type(error).__name__, " ".join(str(error).split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
    reason = f"{kind}: {text}" if text else kind
    if kind in _MEMORY_ERRORS or any(sign in str(error) for sign in _CPU_MEMORY):
        reason = f"too little memory ({reason}); close other programs, or take a larger machine"
    try:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            file.write(f"{now} {source}\n{traceback.format_exc()}\n")
    except OSError as full:
        return f"{source}: {reason} ({LOG} could not be written: {full.strerror or full})."
    return f"{source}: {reason}; the details are in {LOG}."
