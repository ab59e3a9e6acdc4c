"""Which slices of a scan to label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.selection.descriptors import ScanDescriptors
from fsmis_components.selection.similarity import align_scans
from fsmis_components.support.sections import part_middles
from fsmis_components.support.support_pack import SupportPack

_SHOWN_BY = 0.5  # share of the other scans that must show a slice


def common_range(shown: np.ndarray, depth: int) -> tuple[int, int]:
    """The slices of a scan that at least half of the other scans show.

    Args:
        shown: (K, 2), places where the first and last slice of each other scan lie.
        depth: number of slices of the scan.

    Returns:
        First and last slice; all slices where no half agrees.
    """
    slices = np.arange(depth)
    if len(shown):
        within = (slices >= shown[:, :1] - 0.5) & (slices <= shown[:, 1:] + 0.5)
        slices = np.flatnonzero(within.mean(0) >= _SHOWN_BY)
    return (int(slices[0]), int(slices[-1])) if len(slices) else (0, depth - 1)


def spread_slices(first: int, last: int, num: int) -> list[int]:
    """Middles of equal parts of a range: three slices lie at 1/6, 1/2 and 5/6 of it.

    Args:
        first: first slice.
        last: last slice.
        num: number of parts; of a shorter range each slice is taken once.

    Source: SSL-ALPNet (ECCV 2020), released evaluation, whose rule for three parts it is.
    """
    length = last - first + 1
    return sorted({first + middle for middle in part_middles(length, num)})


def structure_slices(scan: ScanDescriptors, pack: SupportPack, num: int) -> dict[str, list[int]]:
    """Slices for each structure, where the present support expects it in the scan.

    Args:
        scan: preprocessed as the support.
        pack: the present support.
        num: slices per structure.

    Returns:
        Ascending, numbered from 0 in the order of `SliceView`, by the names of the structures that
        lie in the scan.
    """
    found = [align_scans(scan, support) for support in ScanDescriptors.of_support(pack)]
    slices = {}
    for index, structure in enumerate(pack.structures):
        labelled = [
            place
            for place, profile in enumerate(pack.profiles)
            if not bool(profile.extents[index].isnan().any())
        ]
        # the most similar scan in which it is labelled answers
        place = max(labelled, key=lambda scan: found[scan].similarity)
        first, last = pack.profiles[place].extents[index].tolist()
        positions = found[place].positions
        inside = np.flatnonzero((positions >= first) & (positions <= last))
        if len(inside):
            slices[structure.name] = spread_slices(int(inside[0]), int(inside[-1]), num)
    return slices


def file_numbers(volume: Volume, grid: SliceGrid, slices: Sequence[int]) -> tuple[list[int], str]:
    """How a viewer that knows nothing of our order finds slices.

    Args:
        volume: the scan.
        grid: how it was cut.
        slices: numbered from 0 in the order of `SliceView`.

    Returns:
        Numbers from 0 along the stored axis, and that axis' name: "i", "j" or "k".
    """
    view = SliceView(volume, grid)
    axes, numbers = zip(*map(view.stored_slice, slices), strict=True)
    return list(numbers), "ijk"[axes[0]]
