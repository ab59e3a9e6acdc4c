"""Errors about a request, in words that reach the person who sent it."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError

_ServerError: Any = Exception
with suppress(ImportError):  # where the web framework is not installed, nobody listens
    # MONAI Label turns every exception into "Internal Server Error" except this one
    _ServerError = importlib.import_module("starlette.exceptions").HTTPException

UNPROCESSABLE = 422
# the folders of an absolute path, of Unix or of Windows
_FOLDERS = re.compile(r"(?<![\w.\-/\\])(?:/|[A-Za-z]:\\)(?:[^\s/\\:;,'\"]+[/\\])+(?=[^\s/\\])")
_SESSIONS = "~/.cache/monailabel/sessions"  # where MONAI Label keeps uploads of a session


class RequestError(DataError, _ServerError):
    """A `DataError` that a MONAI Label server answers with status 422 and the sentence.

    Who sends a request learns the names of files, not the folders in which they lie.
    """

    def __init__(self, sentence: str) -> None:
        DataError.__init__(self, names_only(sentence))
        self.status_code = UNPROCESSABLE
        self.detail = str(self)
        self.headers = None

    def __str__(self) -> str:
        return ValueError.__str__(self)


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn a `DataError` or SystemExit of the body, and a lack of memory, into a `RequestError`."""
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


def is_own_file(source: object, studies_dir: str | Path) -> bool:
    """Whether a request names by its path a file of the server that is there, and may do so.

    Only what lies below the studies folder after links are resolved, the scans to which the folder
    itself links, and what was uploaded to the server, with a request or for a session.
    """
    named = isinstance(source, str | Path) and str(source).isprintable()
    if not named or not Path(str(source)).exists():
        return False
    studies = Path(studies_dir)
    if not studies.is_dir():
        return True  # a remote datastore, which has its own cache
    resolved = Path(str(source)).resolve()
    sessions = Path(os.environ.get("MONAI_LABEL_SESSION_PATH") or _SESSIONS).expanduser()
    if resolved.is_relative_to(studies.resolve()) or resolved.is_relative_to(sessions.resolve()):
        return True
    # others may keep files of their own in the temporary folder
    temporary = Path(tempfile.gettempdir()).resolve()
    if resolved.parent == temporary and resolved.name.startswith(tempfile.gettempprefix()):
        return True
    return any(link.is_symlink() and link.resolve() == resolved for link in studies.iterdir())
