"""The folder in which a MONAI Label server keeps volumes and labels."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.data.json_text import parse_json
from fsmis_components.data.nifti import is_nifti_name, strip_nifti_suffix
from fsmis_components.support.labelled_volume import LabelledVolume, names_of
from fsmis_components.support.support_set import label_names

FINAL = "final"  # the tag of labels that a person submitted
_LABELS = "labels"
_RECORD = "datastore_v2.json"
_LONGEST_NAME = 200
_SESSIONS = "~/.cache/monailabel/sessions"  # where MONAI Label keeps uploads of a session

_ATTEMPTS, _PAUSE = 10, 0.05  # seconds


def is_studies_folder(folder: Path) -> bool:
    """Whether labels of a MONAI Label server lie below a folder of volumes."""
    return (folder / _LABELS).is_dir()


def is_plain_name(text: object) -> bool:
    """Whether an id or a tag of a request is a name: it leads into no other folder.

    Nor can it be taken for an expression of a config, an option of a command or a hidden file.
    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= _LONGEST_NAME
        and text.isprintable()
        and text == text.strip()
        and text[0] not in "$%@.-~"
        and not set(text) & set('/\\:*?"<>|')
    )


def is_served(path: str | Path, studies_dir: str | Path) -> bool:
    """Whether a request may name a file of a server by its path.

    Only what lies below the studies folder after links are resolved, the scans to which the folder
    itself links, and what was uploaded to the server (`is_upload`).

    Args:
        path: of the request.
        studies_dir: folder of the server's scans.
    """
    studies = Path(studies_dir)
    if not studies.is_dir():
        return True  # a remote datastore, which has its own cache
    resolved = Path(path).resolve()
    if resolved.is_relative_to(studies.resolve()) or is_upload(path):
        return True
    return any(link.is_symlink() and link.resolve() == resolved for link in studies.iterdir())


def is_upload(path: str | Path) -> bool:
    """Whether a file was uploaded to MONAI Label: with a request, or for a session."""
    resolved = Path(path).resolve()
    sessions = os.environ.get("MONAI_LABEL_SESSION_PATH") or _SESSIONS
    if resolved.is_relative_to(Path(sessions).expanduser().resolve()):
        return True
    return is_temporary(path)


def is_temporary(path: str | Path) -> bool:
    """Whether a file is one of those that MONAI Label makes in the temporary folder."""
    resolved = Path(path).resolve()
    temporary = Path(tempfile.gettempdir()).resolve()
    # others may keep files of their own there
    return resolved.parent == temporary and resolved.name.startswith(tempfile.gettempprefix())


def is_own_file(source: object, studies_dir: str | Path) -> bool:
    """Whether a request names a file of the server that is there."""
    named = isinstance(source, str | Path) and str(source).isprintable()
    return named and Path(str(source)).exists() and is_served(str(source), studies_dir)


def labelled_volumes(studies_dir: str | Path, tag: str = FINAL) -> list[LabelledVolume]:
    """The labelled volumes of a local datastore, the one that was labelled first at the front.

    What lies on disk counts: the datastore's own record may lag behind and is asked only for names
    and times. Hidden files, which are still being written, are left out.

    Args:
        studies_dir: folder of `<id>.nii.gz`, with labels in `labels/<tag>/<id>.nii.gz`.
        tag: which labels; `final` are those that a person submitted.
    """
    folder = Path(studies_dir)
    record = _record(folder)
    names = label_names(folder)
    images = {strip_nifti_suffix(path.name): path for path in _volume_files(folder)}
    found: list[tuple[float, str, LabelledVolume]] = []
    for label in _volume_files(folder / _LABELS / tag):
        id = strip_nifti_suffix(label.name)
        image = images.get(id)
        if image is None:
            continue  # its volume was removed
        info = _label_info(record, id, tag)
        own = names_of(info) or names
        # the record's time survives a copy of the folder, the file's does not
        when = info.get("ts")
        since = float(when) if isinstance(when, int | float) else label.stat().st_mtime
        found.append((since, id, LabelledVolume.of(id, image.resolve(), label.resolve(), own)))
    return [volume for _, _, volume in sorted(found, key=lambda entry: entry[:2])]


def _volume_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and is_nifti_name(path.name) and not path.name.startswith(".")
    )


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / _RECORD
    for _ in range(_ATTEMPTS):
        try:
            objects = parse_json(path.read_text(encoding="utf-8")).get("objects")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError):
            time.sleep(_PAUSE)  # the server writes it in place, so a reader can meet half of it
        else:
            return objects if isinstance(objects, dict) else {}
    raise DataError(
        f"{path}: the record of the labels is not readable; send the request again, or restore it."
    )


def _label_info(record: Mapping[str, Any], id: str, tag: str) -> Mapping[str, Any]:
    entry: Any = record.get(id)
    for key in ("labels", tag, "info"):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry if isinstance(entry, dict) else {}
