"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def atomic_write(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file so that a reader, or an interruption, never meets half of it.

    Args:
        path: the file; folders above it are made, an existing file is replaced.
        write: called with a hidden name in the same folder, which has the ending of `path`, as
            some libraries choose the format by it; it must make that file.

    Returns:
        The path.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, as a rename is atomic only within one file system
    unfinished = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name.lower()}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        # also after an interruption; nothing is left of it once it has its name
        unfinished.unlink(missing_ok=True)
    return path


def atomic_write_text(path: Path, text: str) -> Path:
    """Write a text in UTF-8; arguments and errors as `atomic_write`."""
    return atomic_write(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
