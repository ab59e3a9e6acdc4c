"""Files that a client sends: their names, their sizes, and that none is left when it is refused."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fsmis_components.data.errors import DataError
from fsmis_components.support.studies import is_plain_name

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".dcm", ".zip")
_MOST_UNPACKED = 16 << 30  # bytes of a series of slices
_MOST_FILES = 20_000


def private_folder() -> Path:
    """Make the folder of this process's temporary files one that nobody else may read.

    MONAI Label writes uploads there under names that others could guess or read.
    """
    folder = tempfile.mkdtemp(prefix="few_shot_")  # mode 0700
    tempfile.tempdir = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def check_upload(field: str, name: str, file: IO[bytes]) -> None:
    """Refuse a file whose name or content no client of ours sends.

    Raises:
        DataError: one sentence says why.
    """
    name = re.split(r"[/\\\\]", name)[-1]  # MONAI's client sends the folder on its own machine too
    bare = "." not in name and field == "files"  # slices of a series often have no ending
    if not is_plain_name(name) or not (bare or name.lower().endswith(ENDINGS)):
        raise DataError(
            f"{field}: expected a file with a plain name that ends in {', '.join(ENDINGS)}."
        )
    if name.lower().endswith(".zip"):
        _check_archive(field, file)


def _check_archive(field: str, file: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise DataError(f"{field}: the archive cannot be read.") from error
    finally:
        file.seek(0)
    if len(parts) > _MOST_FILES or sum(part.file_size for part in parts) > _MOST_UNPACKED:
        raise DataError(f"{field}: the archive unpacks to more than this server takes.")
    names = (name for part in parts for name in part.filename.rstrip("/").split("/"))
    if not all(map(is_plain_name, names)):
        raise DataError(f"{field}: the archive holds names that lead out of it.")


@contextmanager
def removed_when_refused(*paths: object) -> Iterator[None]:
    """Remove uploads where the body raises; MONAI Label removes those of answered requests only."""
    try:
        yield
    except Exception:
        for path in paths:
            if isinstance(path, str) and Path(path).is_relative_to(tempfile.gettempdir()):
                Path(path).unlink(missing_ok=True)
        raise
