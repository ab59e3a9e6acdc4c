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
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.z_alignment import align
from fsmis_components.selection.descriptors import Describer, Preprocessing, ScanDescriptors
from fsmis_components.support.sections import part_middles
from fsmis_components.support.support_pack import SupportPack

# of the similarities to the scans that a support is to serve; chosen on ACDC and a fold of CHAOS
_QUANTILE = 0.25
_SHOWN_BY = 0.5  # share of the other scans that must show a slice
OF_STRUCTURE = 3  # slices to label of a structure, what the methods ask for
OF_SCAN = 6  # where nothing is known of structures, so that most are met twice
ALL = "all structures"

# similarity, and where the slices of each scan lie in the other, by the keys of both scans
Compared = dict[tuple[str, str], tuple[float, list[float], list[float]]]


@dataclass(frozen=True)
class RankedScan:
    """A scan that may be labelled."""

    name: str
    image: str  # its file or DICOM folder
    grid: SliceGrid  # how it was cut
    depth: int  # number of its slices
    similarity: float  # mean similarity to the other scans
    gain: float  # the first one of `gains_of`
    chosen: int = 0  # 1: to label first, 2: to label after it, ...; 0: not proposed
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

    A scan that cannot be used is noted and the others go on; that none without a label can be used
    is a `DataError`.

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
        known: pairs of scans that were compared before; those that are compared now are added.
        seconds: after this time no further scan is encoded, but for one without a label.
        progress: show bars with the time that is left.
    """
    support = []
    if pack is not None and describer.preprocessing == Preprocessing.of_support(pack):
        support = ScanDescriptors.of_support(pack)
    found, left_out, waiting = _describe_all(describer, scans, labelled, seconds, progress)
    found = {name: scan for name, scan in found.items() if not any(map(scan.same_as, support))}
    free = [place for place, name in enumerate(found) if name not in labelled]
    refused = [sentence for name, sentence in left_out.items() if name not in labelled]
    if not free and refused:
        raise DataError(f"no scan that can be read is left to label: {'; '.join(refused)}")
    described = [*found.values(), *support]
    similarity, shown = compare_scans(described, known, progress)
    ready = [place for place in range(len(described)) if place not in free]
    turns = {place: (proposed_before or {}).get(described[place].name, 0.0) for place in free}
    first = [place for place in free if turns[place] == min(turns.values())]
    chosen = choose_scans(similarity, first, ready, num)
    table = gains_of(similarity, free, ready)
    gains = dict(zip(free, table[:, 0], strict=True))
    order = [*chosen, *(place for place in _by_gain(free, table) if place not in chosen)]
    cases = {case.name: case for case in scans}
    ranked = []
    for place in order:
        scan, case = described[place], cases[described[place].name]
        others = np.delete(similarity[place], place)
        figures = float(others.mean()) if len(others) else 1.0, float(gains[place])
        entry = RankedScan(case.name, str(case.image), scan.grid, scan.depth, *figures)
        if place in chosen:
            entry = replace(entry, chosen=chosen.index(place) + 1)
            ends = np.delete(shown[place], place, axis=0)
            entry = _with_slices(entry, describer, case, scan, ends, pack, num_slices)
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
    end, waiting = time.monotonic() + seconds, 0
    found: dict[str, ScanDescriptors] = {}
    left_out: dict[str, str] = {}
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
            scan = Describer(describer.encoder, preprocessing, describer.cache).describe(case)
        slices = _structure_slices(scan, pack, num or OF_STRUCTURE)
    if not slices:  # nothing is known of any structure
        slices = {ALL: _spread_slices(_common_slices(shown, scan.depth), num or OF_SCAN)}
    view = SliceView(load_image(case.image), scan.grid)
    # how a viewer that knows nothing of our order finds them
    stored = {what: [view.stored_slice(each)[1] for each in of] for what, of in slices.items()}
    axis = "ijk"[view.order.axes[0]]
    return replace(entry, grid=scan.grid, slices=slices, file_axis=axis, file_slices=stored)


def _common_slices(shown: np.ndarray, depth: int) -> np.ndarray:
    """Slices of a scan that at least half of the others show; all where none agree.

    `shown` (K, 2) are the places where the first and last slice of each other scan lie.
    """
    slices = np.arange(depth)
    if len(shown):
        within = (slices >= shown[:, :1] - 0.5) & (slices <= shown[:, 1:] + 0.5)
        common = np.flatnonzero(within.mean(0) >= _SHOWN_BY)
        slices = common if len(common) else slices
    return slices


def _spread_slices(slices: np.ndarray, num: int) -> list[int]:
    """Middles of `num` equal parts of their range, of three as of SSL-ALPNet; each slice once."""
    first, last = int(slices[0]), int(slices[-1])
    return sorted({first + middle for middle in part_middles(last - first + 1, num)})


def _structure_slices(scan: ScanDescriptors, pack: SupportPack, num: int) -> dict[str, list[int]]:
    """Slices (numbered as in `SliceView`) where the support expects its structures, by name.

    The scan is preprocessed as the support; a structure that lies beside it has no entry.
    """
    lines = [
        (align(scan.descriptors, each.descriptors, each.slope_of(scan.slice_spacing)), each)
        for each in pack.profiles
    ]
    # the most similar scan in which a structure is labelled answers
    ranked = sorted(lines, key=lambda pair: -pair[0].similarity)
    slices = {}
    for index, structure in enumerate(pack.structures):
        line, (first, last) = next(
            (line, profile.extents[index].tolist())
            for line, profile in ranked
            if not profile.extents[index].isnan().any()
        )
        inside = np.flatnonzero((line.positions >= first) & (line.positions <= last))
        if len(inside):
            slices[structure.name] = _spread_slices(inside, num)
    return slices


def compare_scans(
    scans: Sequence[ScanDescriptors], known: Compared | None = None, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Compare all K scans, each with every other as inference compares a query with its support.

    Costs one alignment per pair, about a hundredth of a second for 40 slices each. Pairs that are
    `known` are not compared again; those of scans with a key are added.

    Returns:
        (K, K) mean similarity of slices along the best line, symmetric, 1 on the diagonal; and
        (K, K, 2) where scan j lies in scan i: first and last slice of j as places in i, ascending.
    """
    count, known = len(scans), {} if known is None else known
    similarity, shown = np.eye(count), np.empty((count, count, 2))
    for i in tqdm(range(count), desc="comparing", unit="scan", disable=not progress):
        shown[i, i] = 0, scans[i].depth - 1
        for j in range(i):
            pair = scans[j].key, scans[i].key
            found = known.get(pair)
            if found is None:
                # spacings count where both headers are trusted
                trusted = all(scans[each].grid.spacing is not None for each in (i, j))
                ratio = scans[j].slice_spacing / scans[i].slice_spacing if trusted else 1.0
                line = align(scans[j].descriptors, scans[i].descriptors, ratio)
                # the same line seen from the other scan
                ends = (np.array([0, scans[i].depth - 1]) - line.positions[0]) / line.slope
                found = line.similarity, sorted(line.positions[[0, -1]]), sorted(ends)
                if all(pair):
                    known[pair] = found
            similarity[i, j] = similarity[j, i] = found[0]
            shown[i, j], shown[j, i] = found[1:]
    return similarity, shown


def choose_scans(
    similarity: np.ndarray, candidates: Sequence[int], labelled: Sequence[int], num: int
) -> list[int]:
    """At most `num` candidates that, with the labelled ones, stand for the others best."""
    chosen: list[int] = []
    left = list(candidates)
    while left and len(chosen) < num:
        best = _by_gain(left, gains_of(similarity, left, [*labelled, *chosen]))[0]
        chosen.append(best)
        left.remove(best)
    return chosen


def _by_gain(candidates: Sequence[int], gains: np.ndarray) -> list[int]:
    """Candidates by falling gain (len(candidates), 2); the second column counts in a tie."""
    order = sorted(range(len(candidates)), key=lambda index: tuple(-gains[index].round(9)))
    return [candidates[index] for index in order]


def gains_of(
    similarity: np.ndarray, candidates: Sequence[int], labelled: Sequence[int]
) -> np.ndarray:
    """What each candidate, if labelled, brings to the other scans that are not, (candidates, 2).

    A scan is stood for by the labelled scan most like it, by `similarity` (K, K). The lower
    quartile of that similarity counts, and in the second column its mean: that is high too for a
    scan that closely resembles some and is useless to others. With nothing labelled the gain is
    that of a candidate's similarity to all others.
    """
    gains = np.zeros((len(candidates), 2))
    for index, candidate in enumerate(candidates):
        others = np.setdiff1d(np.arange(len(similarity)), [candidate, *labelled])
        if not len(others):
            continue
        offered = similarity[others, candidate]
        if len(labelled):
            before = similarity[others][:, labelled].max(1)
            gains[index] = _summary(np.maximum(before, offered)) - _summary(before)
        else:
            gains[index] = _summary(offered)
    return gains


def _summary(values: np.ndarray) -> np.ndarray:
    return np.array([np.quantile(values, _QUANTILE), values.mean()])
