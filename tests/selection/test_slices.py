from __future__ import annotations

import numpy as np
import pytest
import torch
from made_scans import GRID, body, scan

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.selection.proposal import (
    file_numbers,
    spread_slices,
    structure_slices,
)
from fsmis_components.support.scan_profile import ScanProfile
from fsmis_components.support.sections import section_slices
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import Structure


@pytest.mark.parametrize("length", range(3, 40))
def test_three_slices_are_the_sections_of_the_method(length: int) -> None:
    assert spread_slices(5, 4 + length, 3) == list(section_slices(range(5, 5 + length)))


def pack() -> SupportPack:
    """Return two support scans of one body; the second structure is labelled in the second."""
    nothing = [float("nan")] * 2
    profiles = []
    for first, extents in ((0, [[3.5, 9.5], nothing]), (4, [nothing, [7.5, 13.5]])):
        descriptors = body(first, first + 15, seed=first).half()
        profiles.append(
            ScanProfile(str(first), 1.0, descriptors, torch.zeros(0), torch.tensor(extents))
        )
    structures = (Structure("upper", 1, "#e6550d"), Structure("lower", 2, "#3182bd"))
    return SupportPack(
        {}, torch.zeros(0), torch.zeros(0), tuple(profiles), structures, GRID,
        Normalisation("mr"), "none", "none",
    )  # fmt: skip


def test_slices_where_the_support_expects_structures() -> None:
    # the scan begins at place 2: "upper" at 4..9 is slices 2..7, "lower" at 12..17 is 10..15
    found = structure_slices(scan("next", body(2, 19, seed=9)), pack(), 3)
    assert found == {"upper": [3, 5, 7], "lower": [11, 13, 15]}


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_numbers_in_the_file(slice_axis: int) -> None:
    # stored as (inferior, left, anterior)
    affine = np.zeros((4, 4))
    affine[[2, 0, 1, 3], [0, 1, 2, 3]] = [-1, -1, 1, 1]
    data = np.random.default_rng(0).normal(size=(9, 10, 11))
    volume = Volume(data, affine)
    grid = SliceGrid(slice_axis, None, 64)
    numbers, axis = file_numbers(volume, grid, [2])
    assert axis == {0: "j", 1: "k", 2: "i"}[slice_axis]
    own = np.take(data, numbers[0], axis="ijk".index(axis))
    assert np.sort(own, None) == pytest.approx(np.sort(SliceView(volume, grid).native(2, 3), None))
