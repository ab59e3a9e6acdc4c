"""The list of training slices that Setting 2 leaves out, by the rule that training follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import Case
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.exclusion import excluded, shown_structures
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.volumes import load_image


@dataclass(frozen=True)
class ExcludedSlice:
    """A slice that no episode is drawn from.

    Attributes:
        case: name of the scan.
        index: of the slice from 0, in the order of `SliceView` (axial: from inferior).
        shown: which of the structures to be left out it shows, label values.
    """

    case: str
    index: int
    shown: tuple[int, ...]


@dataclass(frozen=True)
class ExcludedSlices:
    """What Setting 2 leaves out of a list of scans.

    Attributes:
        dropped: the slices, in the order of the scans.
        total: slices of all the scans.
    """

    dropped: tuple[ExcludedSlice, ...]
    total: int

    @property
    def summary(self) -> dict[str, int]:
        """The counts as JSON values."""
        return {"dropped": len(self.dropped), "of": self.total}


def excluded_slices(
    cases: Sequence[Case],
    exclude_labels: Sequence[int],
    exclude_rule: str = "any",
    *,
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
) -> ExcludedSlices:
    """Find the slices that a training on these scans leaves out.

    Args:
        cases: labelled scans.
        exclude_labels: label values that the training must not see, at least one.
        exclude_rule: "any" or "all", see `excluded`.
        slice_axis: as in the training, see `choose_slice_grid`.
        ignore_spacing: as in the training.

    Raises:
        DataError: a scan has no label or cannot be read, or there is no such rule.
    """
    dropped, total = [], 0
    for case in cases:
        volume = load_image(case.image)
        grid = choose_slice_grid(volume, slice_axis=slice_axis, ignore_spacing=ignore_spacing)
        shown = shown_structures(case, volume, grid, exclude_labels)
        total += shown.shape[1]
        for index in np.flatnonzero(excluded(shown, exclude_rule)):
            values = [v for v, there in zip(exclude_labels, shown[:, index], strict=True) if there]
            dropped.append(ExcludedSlice(case.name, int(index), tuple(values)))
    return ExcludedSlices(tuple(dropped), total)


def write_excluded_slices(path: str | Path, found: ExcludedSlices) -> Path:
    """Write a line per slice: case, index, label values joined by "+"; whole or not at all."""
    lines = [[entry.case, entry.index, "+".join(map(str, entry.shown))] for entry in found.dropped]
    return atomic_write_text(Path(path), csv_table([["case", "slice", "shown"], *lines]))
