"""Errors about a request, in words that reach the person who sent it."""

from __future__ import annotations

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


class RequestError(DataError, _ServerError):
    """A `DataError` that a MONAI Label server answers with status 422 and the sentence.

    Args:
        sentence: as of `DataError`.
    """

    def __init__(self, sentence: str) -> None:
        DataError.__init__(self, sentence)
        self.status_code = UNPROCESSABLE
        self.detail = str(self)
        self.headers = None

    def __str__(self) -> str:
        return ValueError.__str__(self)


@contextmanager
def answered() -> Iterator[None]:
    """Turn a `DataError` of the body into a `RequestError`."""
    try:
        yield
    except RequestError:
        raise
    except DataError as error:
        raise RequestError(str(error)) from error
