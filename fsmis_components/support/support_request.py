"""The support that a request names: labelled volumes become a pack, each encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.support.encode import build_support_pack, frame_of
from fsmis_components.support.recent import RecentResults
from fsmis_components.support.support_pack import SupportPack, join_packs
from fsmis_components.support.support_set import (
    LabelledSlices,
    SupportScan,
    SupportSet,
    choose_structures,
)

Stamp = tuple[int, int]  # size in bytes and time of the last change in nanoseconds
Origin = Literal["request", "datastore", "bundle"]
SUPPORT_KEY = "fsmis_support"  # entry of an image's meta: the `SupportRequest`
RESULT_KEY = "fsmis_result"  # entry of a mask's meta: which support answered and what it says
# the last supports, their scans, and what is known of volumes; a scan's pack takes about 1 MB per
# labelled slice
_MOST_PACKS, _MOST_SCANS, _MOST_VOLUMES = 3, 10, 1000


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume that may serve as support."""

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
        """A volume as it is on disk now; a missing file is a `DataError`."""
        return cls(id, str(image), str(label), dict(names or {}), (_stamp(image), _stamp(label)))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the same files in the same state with the same names, called the same."""
        names = tuple(sorted(self.names.items()))
        return self.id, self.image, self.label, self.stamps, names

    def load(self) -> SupportScan:
        """Image and label, the label with its own values.

        A file that cannot be used, or was changed since it was found, is a `DataError`.
        """
        image = load_image(self.image)
        label = load_label(self.label, image)
        if (_stamp(self.image), _stamp(self.label)) != self.stamps:
            raise DataError(f"{self.label}: was changed while it was read; send the request again.")
        return SupportScan(self.id, image, label)

    def values(self) -> tuple[int, ...]:
        """Label values above 0, ascending; a volume that cannot serve is a `DataError`."""
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
        taken: dict[str, int] = {}
        for value in values:
            name = _fold_name(self.names.get(value, "" if self.names else f"structure_{value}"))
            if not name:
                known = ", ".join(f"{value} ({name})" for value, name in sorted(self.names.items()))
                raise DataError(
                    f"{self.label}: label value {value} has no name (names are given for {known}); "
                    "name the segment and submit the label again."
                )
            if name in taken:
                raise DataError(
                    f"{self.label}: label values {taken[name]} and {value} are both called "
                    f"{self.names[value]}; join the segments or rename one."
                )
            taken[name] = value
        return values


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
    volumes: tuple[LabelledVolume, ...] = ()  # as labelled; the first one sets the working grid
    structures: str | int | Sequence[str | int] | None = None  # label values or names; None: all
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


class ResolvedSupport(NamedTuple):
    """The support of a request."""

    pack: SupportPack  # the support
    notes: tuple[str, ...]  # which labelled volumes could not serve, and why
    source: str  # where the pack comes from
    # of each label file that was read, the structures' values by its own values
    values: Mapping[str, Mapping[int, int]] = MappingProxyType({})


class RequestedSupport:
    """Make packs of labelled volumes for the requests of parallel workers.

    A request names its volumes, files and their state included, so what is kept between requests
    can only save time, never change an answer. A volume that joins others is encoded alone.
    `geometry` and `encoding` are arguments of `build_support_pack`.
    """

    def __init__(
        self, geometry: Mapping[str, Any], slices: LabelledSlices, encoding: Mapping[str, Any]
    ) -> None:
        self.geometry = geometry
        self.slices = slices
        self.encoding = encoding
        self._packs: RecentResults[ResolvedSupport] = RecentResults(_MOST_PACKS)
        self._scans: RecentResults[SupportPack] = RecentResults(_MOST_SCANS)
        self._values: RecentResults[tuple[int, ...]] = RecentResults(_MOST_VOLUMES)

    def resolve(self, network: nn.Module, weights: str, request: SupportRequest) -> ResolvedSupport:
        """The pack of a request of at least one volume, for a network and its `weights_hash`.

        It is a `DataError` where no volume can serve, or a structure is not among theirs.
        """
        key = weights, request.key
        found = self._packs.get(key, partial(self._resolve, network, weights, request))
        return found._replace(source=request.origin)

    def _resolve(
        self, network: nn.Module, weights: str, request: SupportRequest
    ) -> ResolvedSupport:
        notes: list[str] = []
        usable: dict[LabelledVolume, tuple[int, ...]] = {}
        for volume in request.volumes:
            try:
                usable[volume] = self._values.get(volume.key, volume.values)
            except DataError as error:
                notes.append(str(error))
        if not usable:
            raise _none_left(notes)
        names, values = common_structures(usable)
        ids = ", ".join(volume.id for volume in usable)
        wanted = choose_structures(request.structures, sorted(names), names, f"labels of {ids}")
        # a volume is encoded for all structures, whichever are asked for: it is encoded once
        structures = choose_structures(None, sorted(names), names, ids)
        serving = _serving(values, [each.value for each in wanted], request.num_shots)
        frame = frame_of(load_image(next(iter(usable)).image), **self.geometry)
        packs = []
        for volume, common, serves in zip(usable, values, serving, strict=True):
            if not serves:
                continue
            key = weights, volume.key, tuple(common.items()), structures, frame

            def encode(volume: LabelledVolume = volume, values: Any = common) -> SupportPack:
                scans = (relabel(volume.load(), values),)
                support_set = SupportSet(scans, structures, volume.label, self.slices)
                return build_support_pack(network, support_set, frame=frame, **self.encoding)

            try:
                packs.append(self._scans.get(key, encode))
            except DataError as error:
                notes.append(str(error))
        if not packs:
            raise _none_left(notes)
        named = ", ".join(profile.name for pack in packs for profile in pack.profiles)
        pack = replace(join_packs(packs), source=f"labels of {named}")
        pack = pack.selected([each.value for each in wanted])
        for structure, used in zip(pack.structures, pack.sections.flatten(1).any(1), strict=True):
            if not used:
                raise DataError(
                    f"{structure.name}: is smaller than one pixel at spatial_size "
                    f"{pack.grid.spatial_size} in every labelled volume; label more of it."
                )
        pack = pack.numbered() if request.number_structures else pack
        chosen = zip(wanted, pack.structures, strict=True)
        final = {each.value: structure.value for each, structure in chosen}
        read = {
            volume.label: {value: final[to] for value, to in common.items() if to in final}
            for volume, common in zip(usable, values, strict=True)
        }
        return ResolvedSupport(pack, tuple(notes), request.origin, read)


def _serving(
    values: Sequence[Mapping[int, int]], wanted: Sequence[int], num_shots: int | None
) -> list[bool]:
    """Which volumes serve: of each wanted structure the last ones that show it."""
    chosen: set[int] = set()
    for value in wanted:
        shows = [place for place, common in enumerate(values) if value in common.values()]
        chosen.update(shows if num_shots is None else shows[-num_shots:])
    return [place in chosen for place in range(len(values))]


def relabel(scan: SupportScan, values: Mapping[int, int]) -> SupportScan:
    """A scan whose label has other values; those that are not among `values` become 0."""
    label = np.asarray(scan.label.data)
    renamed = np.zeros(label.shape, np.min_scalar_type(max(values.values(), default=0)))
    for value, to in values.items():
        renamed[label == value] = to
    return replace(scan, label=replace(scan.label, data=renamed))


def _none_left(notes: Sequence[str]) -> DataError:
    if len(notes) == 1:
        return DataError(notes[0])
    return DataError(f"no labelled volume can serve: {'; '.join(note[:-1] for note in notes)}.")
