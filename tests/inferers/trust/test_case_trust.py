from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.trust import Measures, case_trust
from fsmis_components.inferers.trust.case_trust import Likeness, expected_dice, out_of_support
from fsmis_components.inferers.z_alignment import Alignment
from fsmis_components.support.scan_profile import ScanProfile
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import Structure

VIEW = SliceView(Volume(np.zeros((32, 24, 4)), np.eye(4)), SliceGrid(2, 1.0, 32))
GOOD, POOR = Measures(0.9, 0.9), Measures(0.4, 0.4)


def pack_of(scans: int) -> SupportPack:
    """A pack of which only the profiles count: four slices each."""
    nothing = torch.zeros(1, 4, 1, 1, dtype=torch.uint8)
    profile = ScanProfile("scan", 1.0, torch.zeros(4, 64), nothing, torch.zeros(1, 2))
    return SupportPack(
        state={},
        sections=torch.zeros(1, 0, 3, dtype=torch.bool),
        origins=torch.zeros(0, 2, dtype=torch.int64),
        profiles=(profile,) * scans,
        structures=(Structure("liver", 1, "#000000"),),
        grid=VIEW.grid,
        normalisation=Normalisation("mr"),
        method="",
        weights_hash="",
    )


USUAL = Likeness(0.4, False, -0.1, 1.0, 0.75, 12)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"similarity": 0.05}, ""),  # well segmented all the same
        ({"expected_dice": 0.15}, "fits this scan badly (expected Dice 15)"),
        ({"expected_dice": 0.45}, ""),  # many structures, some of them small
        ({"similarity": 0.05, "expected_dice": 0.15}, "similarity 0.05, expected Dice 15"),
        ({"similarity": 0.05, "expected_dice": 0.5}, "does not look like"),
        ({"extent_ratio": 2.3}, "2.3 times as large"),
        ({"extent_ratio": 0.39}, "0.39 times as large"),
        ({"reversed": True}, "run against"),
        ({"mirror_gain": 0.03}, "mirrored"),
        ({"mirror_gain": 0.01}, ""),
        ({"mirror_gain": 0.06, "reversed": True}, "mirrored"),
        ({"mirror_gain": 0.2, "similarity": 0.05}, "mirrored"),
        ({"mirror_gain": 0.05, "similarity": 0.05, "expected_dice": 0.5}, "does not look like"),
        ({"depth": 1, "reversed": True}, "one slice only"),
    ],
)
def test_warning(change: dict[str, float], word: str) -> None:
    warning = out_of_support(replace(USUAL, **change))
    assert word in warning
    assert bool(warning) == bool(word)
    assert "\n" not in warning


@pytest.mark.parametrize(
    ("similarities", "measures", "warned"),
    [((0.4,), POOR, False), ((0.1,), POOR, True), ((0.1, 0.4), POOR, False), ((0.1,), GOOD, False)],
)
def test_the_most_similar_scan_counts(
    similarities: tuple[float, ...], measures: Measures, warned: bool
) -> None:
    alignments = tuple(Alignment(np.arange(4.0), 1.0, each) for each in similarities)
    shares = np.full(len(similarities), 1 / len(similarities))
    match = VolumeMatch(alignments, shares, torch.zeros(4, 1, 1))
    trust = case_trust([measures], match, VIEW, pack_of(len(similarities)))
    assert trust.expected_dice == (expected_dice(measures),)
    assert ("does not look like" in trust.warning) == warned
