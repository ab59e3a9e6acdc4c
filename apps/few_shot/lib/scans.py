"""Which scans of a datastore can be used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image
from fsmis_components.support.keeper import Keeper

_MOST_SCANS = 10_000


class ScanChecks:
    """Tell scans that can be read from others; each is read once as long as it does not change."""

    def __init__(self) -> None:
        self._troubles: Keeper[str] = Keeper(_MOST_SCANS)

    def usable(self, paths: Mapping[str, str]) -> tuple[list[Case], dict[str, str]]:
        """Sort out what cannot be used.

        Args:
            paths: file or DICOM folder by id.

        Returns:
            The scans sorted by id, and why the others cannot be used, by their ids.
        """
        cases, refused = [], {}
        for id, path in sorted((id, Path(path)) for id, path in paths.items()):
            # a scan that is gone is not kept, so that its return is noticed
            state = _state(path) if path.exists() else None
            look = partial(_trouble, path)
            trouble = look() if state is None else self._troubles.get((path, state), look)
            if trouble:
                refused[id] = trouble
            else:
                cases.append(Case(id, path, alias=id))
        return cases, refused


def _trouble(path: Path) -> str:
    try:
        shape = load_image(path).shape
    except DataError as error:
        return str(error)
    if min(shape) < 2:
        size = " x ".join(map(str, shape))
        return f"{path}: has one slice only ({size} voxels); take a volume."
    return ""


def _state(path: Path) -> tuple[int, ...]:
    """Size and times of a file or folder; a program that copies can set one of the times only."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    times = [max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]
    return sum(stat.st_size for stat in stats), max(times, default=0)
