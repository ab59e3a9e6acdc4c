"""Files that a client sends: their names, and that none is left when it is refused."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmis_components.data.errors import DataError
from fsmis_components.support.studies import is_plain_name

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".dcm")


def private_folder() -> Path:
    """Make the folder of this process's temporary files one that nobody else may read.

    MONAI Label writes uploads there under names that others could guess or read.
    """
    folder = tempfile.mkdtemp(prefix="few_shot_")  # mode 0700
    tempfile.tempdir = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def check_upload(field: str, name: str) -> None:
    """Refuse a file whose name no client of ours sends; archives are not unpacked.

    Raises:
        DataError: one sentence says why.
    """
    name = re.split(r"[/\\\\]", name)[-1]  # MONAI's client sends the folder on its own machine too
    bare = "." not in name and field == "files"  # slices of a series often have no ending
    if not is_plain_name(name) or not (bare or name.lower().endswith(ENDINGS)):
        raise DataError(
            f"{field}: expected a file with a plain name that ends in {', '.join(ENDINGS)}."
        )


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
