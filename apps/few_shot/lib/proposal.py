"""Which scan to label next, put together from `fsmis_components.inferers.suggest`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.suggest import (
    LookRule,
    LookStore,
    ScanLook,
    compare_scans,
    look_at,
    look_at_folder,
)
from fsmis_components.inferers.suggest.likeness import Likeness, choose_scans
from fsmis_components.inferers.suggest.slices import (
    SliceChoice,
    common_range,
    file_numbers,
    spread_slices,
    structure_slices,
)
from fsmis_components.support.support_pack import SupportPack, weights_hash
from lib.scans import ScanChecks

OF_STRUCTURE = 3  # slices to label of a structure, what the methods ask for
OF_SCAN = 6  # where nothing is known of structures, so that most are met twice

FindPack = Callable[[], SupportPack | None]


@dataclass(frozen=True)
class Proposal:
    """A scan to label.

    Attributes:
        id: of the scan.
        axis: "i", "j" or "k", the stored axis along which slices are counted.
        slices: what to label of each structure, numbers from 0 along that axis.
        similarity: mean similarity to the other scans.
        left_out: why scans cannot be used, by their ids.
        waiting: scans that were not looked at for want of time.
    """

    id: str
    axis: str
    slices: dict[str, list[int]]
    similarity: float
    left_out: dict[str, str]
    waiting: int


class Proposer:
    """Propose scans; each is looked at once, and again only when it or the weights change.

    All scans, labelled ones too, are looked at by one rule that needs no support: a new label
    changes no look, so that the scan after it is proposed at once.

    Args:
        folder: where looks are kept.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing` of the bundle.
        encoding: `batch_size` and `amp`.
    """

    def __init__(
        self, folder: Path, geometry: Mapping[str, Any], encoding: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.geometry = dict(geometry)
        self.encoding = dict(encoding)
        self._checks = ScanChecks()
        self._compared: tuple[Any, Likeness] | None = None

    def propose(
        self,
        network: nn.Module,
        paths: Mapping[str, str],
        labelled: Collection[str],
        proposed_before: Mapping[str, float],
        find_pack: FindPack,
        seconds: float,
    ) -> Proposal | None:
        """The scan that stands best for those that are not labelled.

        Args:
            network: looks at scans.
            paths: file or DICOM folder of all scans, by id.
            labelled: ids of labelled scans.
            proposed_before: when scans were proposed; they wait until all others were, the oldest
                first, so that asking again skips a scan.
            find_pack: the present support, for the slices to label.
            seconds: no further scan is looked at after this time.

        Returns:
            None where every usable scan is labelled.

        Raises:
            DataError: scans without a label are left, but none of them can be used.
        """
        cases, left_out = self._checks.usable(paths)
        if not any(case.name not in labelled for case in cases):
            refused = [sentence for id, sentence in left_out.items() if id not in labelled]
            if refused:
                raise DataError(f"no scan that can be read is left to label: {'; '.join(refused)}")
            return None
        rule = LookRule.of_first(load_image(cases[0].image), self.geometry)
        # those that may be proposed first, should time run out
        cases.sort(key=lambda case: case.name in labelled)
        looks, failures, waiting = self._looks(network, cases, labelled, rule, seconds)
        cases = [case for case in cases if case.name in looks]
        free = [place for place, case in enumerate(cases) if case.name not in labelled]
        if not free:
            raise DataError(f"no scan is left to label: {'; '.join(failures.values())}")
        likeness = self._compare(weights_hash(network), [looks[case.name] for case in cases])
        known = [place for place in range(len(cases)) if place not in free]
        turn = {place: proposed_before.get(cases[place].name, 0.0) for place in free}
        first = [place for place in free if turn[place] == min(turn.values())]
        place = choose_scans(likeness.similarity, first, known, 1)[0]
        case, look = cases[place], looks[cases[place].name]
        axis, slices = self._slices(network, case, look, likeness, place, find_pack())
        others = np.delete(likeness.similarity[place], place)
        similarity = float(others.mean()) if len(others) else 1.0
        return Proposal(case.name, axis, slices, similarity, {**left_out, **failures}, waiting)

    def _looks(
        self,
        network: nn.Module,
        cases: Sequence[Case],
        labelled: Collection[str],
        rule: LookRule,
        seconds: float,
    ) -> tuple[dict[str, ScanLook], dict[str, str], int]:
        end = time.monotonic() + seconds
        store = LookStore(self.folder / "looks", network, rule, self.encoding["amp"])
        found = {case.name: store.get(case.image, case.name) for case in cases}
        looks = {name: look for name, look in found.items() if look is not None}
        failures: dict[str, str] = {}
        waiting = 0
        for case in cases:
            if case.name in looks:
                continue
            if time.monotonic() > end and not looks.keys() <= set(labelled):
                waiting += 1
                continue
            made = look_at_folder(network, [case], rule, store, progress=False, **self.encoding)
            looks.update({look.name: look for look in made.looks})
            failures.update(made.failures)
        return looks, failures, waiting

    def _compare(self, weights: str, looks: Sequence[ScanLook]) -> Likeness:
        """All pairs, in the order of the looks; kept until another scan is looked at."""
        order = sorted(range(len(looks)), key=lambda place: looks[place].name)
        key = weights, [(looks[k].name, float(looks[k].descriptors.float().sum())) for k in order]
        if self._compared is None or self._compared[0] != key:
            self._compared = key, compare_scans([looks[k] for k in order])
        kept = self._compared[1]
        places = [order.index(k) for k in range(len(looks))]
        return Likeness(kept.similarity[places][:, places], kept.shown[places][:, places])

    def _slices(
        self,
        network: nn.Module,
        case: Case,
        look: ScanLook,
        likeness: Likeness,
        place: int,
        pack: SupportPack | None,
    ) -> tuple[str, dict[str, list[int]]]:
        volume = load_image(case.image)
        choices: list[SliceChoice] = []
        if pack is not None:  # where the support expects each structure
            rule = LookRule.of_support(pack)
            look = look_at(network, volume, case.name, rule, **self.encoding)
            choices = structure_slices(look, pack, OF_STRUCTURE)
        if not choices:
            shown = np.delete(likeness.shown[place], place, axis=0)
            first, last = common_range(shown, look.depth)
            choices = [SliceChoice("all structures", spread_slices(first, last, OF_SCAN))]
        numbers = {
            choice.what: file_numbers(volume, look.grid, choice.slices) for choice in choices
        }
        axis = next(iter(numbers.values()))[1]
        return axis, {what: sorted(slices) for what, (slices, _) in numbers.items()}
