"""Errors about a request, in words that reach the person who sent it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from monai.utils import optional_import

from fsmis_components.data.errors import DataError

if TYPE_CHECKING:
    _ServerError = Exception
else:
    # MONAI Label turns every exception into "Internal Server Error" except this one of its web
    # framework; where that is not installed, nobody listens
    _ServerError, _found = optional_import("starlette.exceptions", name="HTTPException")
    _ServerError = _ServerError if _found else Exception

UNPROCESSABLE = 422
# the folders of an absolute path, of Unix or of Windows
_FOLDERS = re.compile(r"(?<![\w.\-/\\])(?:/|[A-Za-z]:\\)(?:[^\s/\\:;,'\"]+[/\\])+(?=[^\s/\\])")


class RequestError(DataError, _ServerError):
    """A `DataError` that a MONAI Label server answers with status 422 and the sentence.

    Who sends a request learns the names of files, not the folders in which they lie.

    Args:
        sentence: as of `DataError`.
    """

    def __init__(self, sentence: str) -> None:
        DataError.__init__(self, names_only(sentence))
        self.status_code = UNPROCESSABLE
        self.detail = str(self)
        self.headers = None

    def __str__(self) -> str:
        return ValueError.__str__(self)


@contextmanager
def answered() -> Iterator[None]:
    """Turn a `DataError` of the body, and a lack of memory, into a `RequestError`.

    So too the end that an entry of a config makes of a command: it must not end a server.
    """
    try:
        yield
    except RequestError:
        raise
    except (DataError, SystemExit) as error:
        raise RequestError(str(error)) from error
    except MemoryError as error:
        raise RequestError("the scan is too large for the memory of this server.") from error


def names_only(sentence: str) -> str:
    """A sentence with file names in place of absolute paths."""
    folders = [os.environ.get("MONAI_LABEL_STUDIES"), tempfile.gettempdir()]
    # those that are known first: the pattern takes a folder with a space for the end of a path
    for folder in filter(None, folders):
        for known in (folder, os.path.realpath(folder)):
            sentence = sentence.replace(known.rstrip("/\\") + os.sep, "")
    return _FOLDERS.sub("", sentence)
