from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.evaluation.protocols import with_labelled_slices
from fsmis_components.support import build_support_pack, load_support_set

GRID = SliceGrid(2, 1.0, 24)


def test_each_structure_keeps_its_own_three_slices(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    support = load_support_set(tmp_path)
    hidden = with_labelled_slices(support, GRID, "sections")
    label = np.asarray(hidden.scans[0].label.data)
    # structure 1 fills slices 2..10, structure 2 fills 3..8
    assert np.flatnonzero((label == 1).any((0, 1))).tolist() == [3, 6, 9]
    assert np.flatnonzero((label == 2).any((0, 1))).tolist() == [4, 6, 8]
    whole = np.asarray(support.scans[0].label.data)
    assert np.array_equal(label[..., 6], whole[..., 6])
    assert hidden.scans[0].image is support.scans[0].image
    assert (hidden.slices, support.slices) == ("sections", "all")


def test_hiding_changes_nothing_for_a_network_that_takes_three_sections(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    support = load_support_set(tmp_path)
    network = IntensityNetwork()
    packs = [
        build_support_pack(network, each, spatial_size=24)
        for each in (
            replace(support, slices="sections"),
            with_labelled_slices(support, GRID, "sections"),
        )
    ]
    assert packs[0].sections.equal(packs[1].sections)
    for key, value in packs[0].state.items():
        assert value.equal(packs[1].state[key])
