"""The support that a request names: labelled volumes become a pack, each encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image
from fsmis_components.support.encode import build_support_pack, frame_of
from fsmis_components.support.join_packs import join_packs
from fsmis_components.support.recent import RecentResults
from fsmis_components.support.support_pack import Frame, SupportPack
from fsmis_components.support.support_request import (
    LabelledVolume,
    SupportRequest,
    common_structures,
)
from fsmis_components.support.support_set import (
    LabelledSlices,
    Structure,
    SupportScan,
    SupportSet,
    choose_structures,
)

# the last supports, their scans, and what is known of volumes; a scan's pack takes about 1 MB per
# labelled slice
_MOST_PACKS, _MOST_SCANS, _MOST_VOLUMES = 3, 10, 1000


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
        self._frames: RecentResults[Frame] = RecentResults(_MOST_VOLUMES)
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
        first = next(iter(usable))
        frame = self._frames.get(first.key, partial(self._frame, first))
        packs = []
        for volume, common, serves in zip(usable, values, serving, strict=True):
            if not serves:
                continue
            key = weights, volume.key, tuple(common.items()), structures, frame
            make = partial(self._encode, network, volume, common, structures, frame)
            try:
                packs.append(self._scans.get(key, make))
            except DataError as error:
                notes.append(str(error))
        if not packs:
            raise _none_left(notes)
        named = ", ".join(profile.name for pack in packs for profile in pack.profiles)
        pack = join_packs(packs).renamed(f"labels of {named}")
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

    def _frame(self, volume: LabelledVolume) -> Frame:
        return frame_of(load_image(volume.image), **self.geometry)

    def _encode(
        self,
        network: nn.Module,
        volume: LabelledVolume,
        values: Mapping[int, int],
        structures: tuple[Structure, ...],
        frame: Frame,
    ) -> SupportPack:
        scan = relabel(volume.load(), values)
        support_set = SupportSet((scan,), structures, volume.label, self.slices)
        return build_support_pack(
            network,
            support_set,
            frame=frame,
            partial=True,
            **self.encoding,
        )


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
