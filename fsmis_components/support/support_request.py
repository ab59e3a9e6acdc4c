"""Which support a request is to be answered with; it travels with the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.support.support_set import SupportScan

Stamp = tuple[int, int]  # size in bytes and time of the last change in nanoseconds
Origin = Literal["request", "datastore", "bundle"]
SUPPORT_KEY = "fsmis_support"  # entry of an image's meta: the `SupportRequest`
RESULT_KEY = "fsmis_result"  # entry of a mask's meta: which support answered and what it says


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume that may serve as support; plain data, so that it can travel in an image's meta."""

    id: str  # what answers call it
    image: str  # NIfTI file or folder of a DICOM series
    label: str  # NIfTI file on the image's grid
    # name of each label value; empty where nobody named them
    names: Mapping[int, str] = field(default_factory=dict)
    # of image and label when the volume was found; other stamps are another volume
    stamps: tuple[Stamp, Stamp] = ((0, 0), (0, 0))

    @classmethod
    def of(
        cls, id: str, image: str | Path, label: str | Path, names: Mapping[int, str] | None = None
    ) -> LabelledVolume:
        """A volume as it is on disk now.

        Raises:
            DataError: a file is missing.
        """
        return cls(id, str(image), str(label), dict(names or {}), (_stamp(image), _stamp(label)))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the same files in the same state with the same names, called the same."""
        names = tuple(sorted(self.names.items()))
        return self.id, self.image, self.label, self.stamps, names

    def load(self) -> SupportScan:
        """Image and label, the label with its own values.

        Raises:
            DataError: a file cannot be used, or was changed since the volume was found.
        """
        image = load_image(self.image)
        label = load_label(self.label, image)
        if (_stamp(self.image), _stamp(self.label)) != self.stamps:
            raise DataError(f"{self.label}: was changed while it was read; send the request again.")
        return SupportScan(self.id, image, label)

    def values(self) -> tuple[int, ...]:
        """Label values above 0, ascending; both files are opened.

        Raises:
            DataError: a file is no NIfTI, the label lies on another grid, is empty or holds a value
                without a name while others have names, or the volume has one slice only.
        """
        scan = self.load()
        if min(scan.image.shape) < 2:
            shape = " x ".join(map(str, scan.image.shape))
            raise DataError(
                f"{self.image}: has one slice only ({shape} voxels), and a support needs a volume; "
                "label a volume."
            )
        values = tuple(int(value) for value in np.unique(np.asarray(scan.label.data)) if value)
        if not values:
            raise DataError(f"{self.label}: the label is empty (0 everywhere); label a structure.")
        nameless = [value for value in values if not self.names.get(value, "").strip()]
        if self.names and nameless:
            known = ", ".join(f"{value} ({name})" for value, name in sorted(self.names.items()))
            raise DataError(
                f"{self.label}: label value {nameless[0]} has no name (names are given for "
                f"{known}); name the segment and submit the label again."
            )
        taken: dict[str, int] = {}
        for value in values:
            name = _fold_name(self.names.get(value, f"structure_{value}"))
            if name in taken:
                raise DataError(
                    f"{self.label}: label values {taken[name]} and {value} are both called "
                    f"{self.names[value]}; join the segments or rename one."
                )
            taken[name] = value
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "id": self.id,
            "image": self.image,
            "label": self.label,
            "names": {str(value): name for value, name in self.names.items()},
            "stamps": [list(stamp) for stamp in self.stamps],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelledVolume:
        """The volume that `to_dict` described."""
        (a, b), (c, d) = content["stamps"]
        names = {int(value): str(name) for value, name in content["names"].items()}
        return cls(content["id"], content["image"], content["label"], names, ((a, b), (c, d)))


def common_structures(
    volumes: Mapping[LabelledVolume, tuple[int, ...]],
) -> tuple[dict[int, str], list[dict[int, int]]]:
    """Give structures of the same name the same value.

    A structure keeps the value of the first volume that names it, unless another one has that
    already. Values of a volume without any names mean what they mean in the volumes with names.

    Returns the name of each common value, and per volume the common value of each own value.
    """
    names: dict[int, str] = {}
    places: dict[str, int] = {}
    common: dict[LabelledVolume, dict[int, int]] = {}
    # those without names come last, so that all names are known
    for volume in sorted(volumes, key=lambda volume: not volume.names):
        common_of: dict[int, int] = {}
        for value in volumes[volume]:
            if not volume.names and value in names:
                common_of[value] = value
                continue
            name = volume.names.get(value, f"structure_{value}").strip()
            folded = _fold_name(name)
            if folded not in places:
                places[folded] = value if value not in names else max(names) + 1
                names[places[folded]] = name
            common_of[value] = places[folded]
        common[volume] = common_of
    return names, [common[volume] for volume in volumes]


def _fold_name(name: str) -> str:
    """The form in which names of structures are compared: "Left  Kidney" is "left kidney"."""
    return " ".join(name.casefold().split())


def _stamp(path: str | Path) -> Stamp:
    try:
        state = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path}: there is no such file; check the path.") from error
    # a program that copies can set the first of the times only
    return state.st_size, max(state.st_mtime_ns, state.st_ctime_ns)


@dataclass(frozen=True)
class SupportRequest:
    """The support of one request."""

    origin: Origin  # who named it; "bundle": nobody, so the bundle's own support answers
    # the labelled volumes, in the order in which they were labelled; the first one sets the working
    # grid
    volumes: tuple[LabelledVolume, ...] = ()
    # label values or names to segment; None: all
    structures: str | int | Sequence[str | int] | None = None
    # of each structure so many volumes serve, those that were labelled last; None: all
    num_shots: int | None = None
    # mask values are 1..N in the order of the structures; otherwise they are those of the labels
    number_structures: bool = False
    notes: tuple[str, ...] = ()  # sentences for the person who asked

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for requests that the same support answers."""
        structures = self.structures
        wanted = structures if isinstance(structures, str | int | None) else tuple(structures)
        volumes = tuple(volume.key for volume in self.volumes)
        return volumes, wanted, self.num_shots, self.number_structures
