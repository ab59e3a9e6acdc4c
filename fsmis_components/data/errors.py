"""Errors about the user's data, told as one sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


class DataError(ValueError):
    """The user's data or arguments are unusable.

    The message is one sentence that names the file or argument, what is wrong with it and what to
    do about it.

    Args:
        sentence: the message; line breaks in it become spaces, so that it stays one line.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(str(sentence).split()))


def exit_on_data_error(entry: T) -> T:
    """Let an entry that configs name end the command with the sentence of a `DataError`.

    MONAI turns a ValueError into sixty lines of traceback but lets SystemExit pass, whose message
    Python prints as the last line, with exit code 1. Library code raises `DataError`; only entries
    that configs name are decorated.

    Args:
        entry: a function, a method or a class; of a class, its constructor is guarded.

    Returns:
        The same class, or a function that behaves as the one given.
    """
    if inspect.isclass(entry):
        entry.__init__ = _exiting(entry.__init__)  # type: ignore[method-assign]
        return entry
    return _exiting(entry)  # type: ignore[return-value]


def _exiting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except DataError as error:
            raise SystemExit(str(error)) from error

    return guarded
