"""Which scans to label next, and which of their slices."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, failure_sentence
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.selection.descriptors import Describer, Preprocessing, ScanDescriptors
from fsmis_components.selection.similarity import (
    Compared,
    align_scans,
    by_gain,
    choose_scans,
    compare_scans,
    gains_of,
)
from fsmis_components.support.sections import part_middles
from fsmis_components.support.support_pack import SupportPack

_SHOWN_BY = 0.5  # share of the other scans that must show a slice
OF_STRUCTURE = 3  # slices to label of a structure, what the methods ask for
OF_SCAN = 6  # where nothing is known of structures, so that most are met twice
ALL = "all structures"


def common_range(shown: np.ndarray, depth: int) -> tuple[int, int]:
    """First and last slice of a scan that at least half of the others show; all where none agree.

    `shown` (K, 2) are the places where the first and last slice of each other scan lie.
    """
    slices = np.arange(depth)
    if len(shown):
        within = (slices >= shown[:, :1] - 0.5) & (slices <= shown[:, 1:] + 0.5)
        slices = np.flatnonzero(within.mean(0) >= _SHOWN_BY)
    return (int(slices[0]), int(slices[-1])) if len(slices) else (0, depth - 1)


def spread_slices(first: int, last: int, num: int) -> list[int]:
    """Middles of `num` equal parts of a range: three slices lie at 1/6, 1/2 and 5/6 of it.

    Of a shorter range each slice is taken once. For three parts it is the rule of SSL-ALPNet.
    """
    return sorted({first + middle for middle in part_middles(last - first + 1, num)})


def structure_slices(scan: ScanDescriptors, pack: SupportPack, num: int) -> dict[str, list[int]]:
    """Slices (numbered as in `SliceView`) for each structure that lies in a scan, by name.

    They lie where the present support expects the structure; the scan is preprocessed as the
    support.
    """
    lines = [align_scans(scan, support) for support in ScanDescriptors.of_support(pack)]
    # the most similar scan in which a structure is labelled answers
    ranked = sorted(zip(lines, pack.profiles, strict=True), key=lambda pair: -pair[0].similarity)
    slices = {}
    for index, structure in enumerate(pack.structures):
        line, (first, last) = next(
            (line, profile.extents[index].tolist())
            for line, profile in ranked
            if not profile.extents[index].isnan().any()
        )
        inside = np.flatnonzero((line.positions >= first) & (line.positions <= last))
        if len(inside):
            slices[structure.name] = spread_slices(int(inside[0]), int(inside[-1]), num)
    return slices


def file_numbers(volume: Volume, grid: SliceGrid, slices: Sequence[int]) -> tuple[list[int], str]:
    """How a viewer that knows nothing of our order finds slices of a scan.

    Returns numbers from 0 along the stored axis, and that axis' name: "i", "j" or "k".
    """
    view = SliceView(volume, grid)
    axes, numbers = zip(*map(view.stored_slice, slices), strict=True)
    return list(numbers), "ijk"[axes[0]]


@dataclass(frozen=True)
class RankedScan:
    """A scan that may be labelled."""

    name: str  # of the scan
    image: str  # its file or DICOM folder
    grid: SliceGrid  # how it was cut
    depth: int  # number of its slices
    similarity: float  # mean similarity to the other scans
    # by how much labelling it now raises the lower quartile of the similarities of the other scans
    # to their support, see `gains_of`
    gain: float
    # 1 for the scan to label first, 2 for the one to label after it; 0: not proposed
    chosen: int = 0
    # what to label of a proposed scan, by structure; numbers from 0 in the order of `SliceView`
    slices: Mapping[str, list[int]] = field(default_factory=dict)
    file_axis: str = ""  # "i", "j" or "k", the stored axis along which slices are counted
    # as `slices`, numbers from 0 along that axis
    file_slices: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """What to label next."""

    # without a label: proposed ones in order, then the others by falling gain
    scans: list[RankedScan]
    left_out: dict[str, str]  # why scans cannot be used, by their names
    waiting: int  # scans that were not encoded for want of time


def propose(
    describer: Describer,
    scans: Sequence[Case],
    *,
    labelled: Collection[str] = (),
    pack: SupportPack | None = None,
    num: int = 1,
    num_slices: int | None = None,
    proposed_before: Mapping[str, float] | None = None,
    known: Compared | None = None,
    seconds: float = math.inf,
    progress: bool = False,
) -> Proposal:
    """Rank scans by what labelling them would bring to those that have no label.

    A scan that cannot be used is noted and the others go on. Each scan is encoded once and kept in
    the describer's cache, so what was interrupted goes on where it stopped.

    Args:
        describer: looks at the scans. Where it cuts them as the support is cut, scans of the
            support stand among the labelled ones and are not proposed under any name.
        scans: their labels are not opened.
        labelled: names of scans that have a label.
        pack: the present support, which says where in a scan each structure is expected.
        num: how many scans to propose.
        num_slices: slices to label per structure; None: 3, or 6 where no structure is known.
        proposed_before: when scans were proposed, by name; they wait until all others were, the
            oldest first.
        known: pairs of scans that were compared before, see `compare_scans`.
        seconds: after this time no further scan is encoded, but for one without a label.
        progress: show bars with the time that is left.

    Raises:
        DataError: scans without a label are left, but none of them can be used.
    """
    as_support = pack is not None and describer.preprocessing == Preprocessing.of_support(pack)
    support = ScanDescriptors.of_support(pack) if pack is not None and as_support else []
    found, left_out, waiting = _describe_all(describer, scans, labelled, seconds, progress)
    found = {name: scan for name, scan in found.items() if not any(map(scan.same_as, support))}
    free = [place for place, name in enumerate(found) if name not in labelled]
    refused = [sentence for name, sentence in left_out.items() if name not in labelled]
    if not free and refused:
        raise DataError(f"no scan that can be read is left to label: {'; '.join(refused)}")
    described = [*found.values(), *support]
    bar = tqdm(range(len(described)), desc="comparing", unit="scan", disable=not progress)
    similarity = compare_scans(described, known, bar)
    ready = [place for place in range(len(described)) if place not in free]
    turns = {place: (proposed_before or {}).get(described[place].name, 0.0) for place in free}
    first = [place for place in free if turns[place] == min(turns.values())]
    chosen = choose_scans(similarity.values, first, ready, num)
    table = gains_of(similarity.values, free, ready)
    gains = dict(zip(free, table[:, 0], strict=True))
    order = [*chosen, *(place for place in by_gain(free, table) if place not in chosen)]
    images = {case.name: case for case in scans}
    ranked = []
    for place in order:
        scan, case = described[place], images[described[place].name]
        figures = similarity.to_others(place), float(gains[place])
        entry = RankedScan(case.name, str(case.image), scan.grid, scan.depth, *figures)
        if place in chosen:
            entry = replace(entry, chosen=chosen.index(place) + 1)
            shown = np.delete(similarity.shown[place], place, axis=0)
            entry = _with_slices(entry, describer, case, scan, shown, pack, num_slices)
        ranked.append(entry)
    return Proposal(ranked, left_out, waiting)


def _describe_all(
    describer: Describer,
    scans: Sequence[Case],
    labelled: Collection[str],
    seconds: float,
    progress: bool,
) -> tuple[dict[str, ScanDescriptors], dict[str, str], int]:
    """Descriptors by name, why other scans have none, and how many were left for want of time."""
    end = time.monotonic() + seconds
    found: dict[str, ScanDescriptors] = {}
    left_out: dict[str, str] = {}
    waiting = 0
    # those that may be proposed first, should time run out
    ordered = sorted(scans, key=lambda case: case.name in labelled)
    with tqdm(ordered, desc="encoding", unit="scan", disable=not progress) as bar:
        for case in bar:
            bar.set_postfix_str(case.stem)
            late = time.monotonic() > end and not found.keys() <= set(labelled)
            try:
                if late and not describer.is_kept(case.image):
                    waiting += 1
                else:
                    found[case.name] = describer.describe(case)
            except Exception as error:  # whatever it is, it ends one scan and not the whole run
                folder = describer.cache.folder
                left_out[case.name] = failure_sentence(error, case.image, folder)
    return found, left_out, waiting


def _with_slices(
    entry: RankedScan,
    describer: Describer,
    case: Case,
    scan: ScanDescriptors,
    shown: np.ndarray,
    pack: SupportPack | None,
    num: int | None,
) -> RankedScan:
    """A scan that is proposed, with the slices to label."""
    slices: dict[str, list[int]] = {}
    if pack is not None:  # where the support expects each structure
        preprocessing = Preprocessing.of_support(pack)
        if describer.preprocessing != preprocessing:
            scan = describer.like(preprocessing).describe(case)
        slices = structure_slices(scan, pack, num or OF_STRUCTURE)
    if not slices:  # nothing is known of any structure
        first, last = common_range(shown, scan.depth)
        slices = {ALL: spread_slices(first, last, num or OF_SCAN)}
    volume = load_image(case.image)
    stored = {what: file_numbers(volume, scan.grid, numbers) for what, numbers in slices.items()}
    return replace(
        entry,
        grid=scan.grid,
        slices=slices,
        file_axis=next(iter(stored.values()))[1],
        file_slices={what: numbers for what, (numbers, _) in stored.items()},
    )
