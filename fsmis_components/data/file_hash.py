"""The hash of a file, by which a result says what it was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fsmis_components.data.errors import unreadable
from fsmis_components.data.volume_names import volume_parts


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder (a DICOM series) by name.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in volume_parts(path):
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()
