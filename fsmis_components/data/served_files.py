"""Which files a request of a MONAI Label server may name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_SESSIONS = "~/.cache/monailabel/sessions"  # where MONAI Label keeps uploads of a session


def is_own_file(source: object, studies_dir: str | Path) -> bool:
    """Whether a request names a file of the server that is there."""
    named = isinstance(source, str | Path) and str(source).isprintable()
    return named and Path(str(source)).exists() and is_served(str(source), studies_dir)


def is_served(path: str | Path, studies_dir: str | Path) -> bool:
    """Whether a request may name a file of a server by its path.

    Only what lies below the studies folder after links are resolved, the scans to which the folder
    itself links, and what was uploaded to the server, with a request or for a session.

    Args:
        path: of the request.
        studies_dir: folder of the server's scans.
    """
    studies = Path(studies_dir)
    if not studies.is_dir():
        return True  # a remote datastore, which has its own cache
    resolved = Path(path).resolve()
    sessions = Path(os.environ.get("MONAI_LABEL_SESSION_PATH") or _SESSIONS).expanduser()
    if resolved.is_relative_to(studies.resolve()) or resolved.is_relative_to(sessions.resolve()):
        return True
    # others may keep files of their own in the temporary folder
    temporary = Path(tempfile.gettempdir()).resolve()
    if resolved.parent == temporary and resolved.name.startswith(tempfile.gettempprefix()):
        return True
    return any(link.is_symlink() and link.resolve() == resolved for link in studies.iterdir())
