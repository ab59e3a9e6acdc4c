"""The labelled volumes in the folder of a MONAI Label server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import is_nifti_name
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.volume_names import strip_volume_suffix
from fsmis_components.support.support_request import LabelledVolume
from fsmis_components.support.support_set import label_names

FINAL = "final"  # the tag of labels that a person submitted
_LABELS = "labels"
_RECORD = "datastore_v2.json"

_ATTEMPTS, _PAUSE = 10, 0.05  # seconds


def is_studies_folder(folder: Path) -> bool:
    """Whether labels of a MONAI Label server lie below a folder of volumes."""
    return (folder / _LABELS).is_dir()


def labelled_volumes(studies_dir: str | Path, tag: str = FINAL) -> list[LabelledVolume]:
    """The labelled volumes of a local datastore, the one that was labelled first at the front.

    The folder holds `<id>.nii.gz`, with labels in `labels/<tag>/<id>.nii.gz`. What lies on disk
    counts: the datastore's own record may lag behind and is asked only for names and times. Hidden
    files, which are still being written, are left out.
    """
    folder = Path(studies_dir)
    record, names = _record(folder), label_names(folder)
    images, labels = _volume_files(folder), _volume_files(folder / _LABELS / tag)
    found: list[tuple[float, str, LabelledVolume]] = []
    for id in images.keys() & labels.keys():  # of some the volume was removed
        image, label = images[id].resolve(), labels[id].resolve()
        info = _label_info(record, id, tag)
        # the record's time survives a copy of the folder, the file's does not
        when = info.get("ts")
        since = float(when) if isinstance(when, int | float) else label.stat().st_mtime
        found.append((since, id, LabelledVolume.of(id, image, label, names_of(info) or names)))
    return [volume for _, _, volume in sorted(found, key=lambda entry: entry[:2])]


def _volume_files(folder: Path) -> dict[str, Path]:
    """The scans or labels of a folder by their ids."""
    return {
        strip_volume_suffix(path.name): path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.is_file() and is_nifti_name(path.name) and not path.name.startswith(".")
    }


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


def names_of(info: Mapping[str, Any]) -> dict[int, str]:
    """Names of label values from what MONAI Label keeps with a label.

    Args:
        info: with `label_info`, list of {"name": text, "idx": value}, where a viewer sent it; with
            our own answer as `params`, where a mask was taken as it was. A segment without a name
            keeps its value with an empty one, so that it can be refused.
    """
    names: dict[int, str] = {}
    if "label_info" not in info:
        params = info.get("params")
        structures = params.get("structures") if isinstance(params, dict) else None
        found = structures.items() if isinstance(structures, dict) else ()
        return {value: str(name) for name, value in found if isinstance(value, int)}
    entries = info["label_info"]
    for entry in entries if isinstance(entries, list) else ():
        value = entry.get("idx", entry.get("id")) if isinstance(entry, dict) else None
        if isinstance(value, int | float | str) and str(value).strip().isdecimal():
            names[int(str(value).strip())] = str(entry.get("name") or "").strip()
    return names
