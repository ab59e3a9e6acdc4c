"""The slices of a support scan that count as labelled; the others are hidden from the method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.support.sections import section_slices
from fsmis_components.support.support_set import LabelledSlices, SupportScan, SupportSet


def with_labelled_slices(
    support: SupportSet, grid: SliceGrid, slices: LabelledSlices
) -> SupportSet:
    """A support set whose labels hold only the slices that count as labelled.

    Args:
        support: completely labelled scans.
        grid: says along which axis slices are cut.
        slices: "all": nothing is hidden. "sections": each structure keeps its three slices at 1/6,
            1/2 and 5/6 of the slices that hold it, in each scan.

    Returns:
        The support set; images are shared, not copied.
    """
    if slices == "all":
        return replace(support, slices=slices)
    values = [structure.value for structure in support.structures]
    scans = tuple(_hidden(scan, grid, values) for scan in support.scans)
    return replace(support, scans=scans, slices=slices)


def _hidden(scan: SupportScan, grid: SliceGrid, values: list[int]) -> SupportScan:
    view = SliceView(scan.label, grid)
    stack = view.native_labels()
    kept = np.zeros_like(stack)
    for value in values:
        own = np.flatnonzero((stack == value).any((1, 2))).tolist()
        for index in sorted(set(section_slices(own))) if own else ():
            kept[index][stack[index] == value] = value
    label = Volume(view.restack(kept), scan.label.affine, scan.label.source)
    return replace(scan, label=label)
