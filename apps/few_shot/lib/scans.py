"""Which scans of a datastore can be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image


def usable_scans(paths: Mapping[str, str]) -> tuple[list[Case], dict[str, str]]:
    """Tell scans that can be read from others; of NIfTI files the header is read only.

    Args:
        paths: file or DICOM folder by id.

    Returns:
        The scans sorted by id, and why the others cannot be used, by their ids.
    """
    cases, refused = [], {}
    for id, path in sorted(paths.items()):
        try:
            shape = load_image(path).shape
            if min(shape) < 2:
                size = " x ".join(map(str, shape))
                raise DataError(f"{path}: has one slice only ({size} voxels); take a volume.")
        except DataError as error:
            refused[id] = str(error)
        else:
            cases.append(Case(id, Path(path), alias=id))
    return cases, refused
