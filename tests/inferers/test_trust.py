from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.trust import TrustMeter, case_trust, out_of_support
from fsmis_components.inferers.z_alignment import Alignment

VIEW = SliceView(Volume(np.zeros((32, 24, 4)), np.eye(4)), SliceGrid(2, 1.0, 32))
GOOD, POOR = 0.86, 0.12
USUAL = {
    "similarity": 0.4,
    "is_reversed": False,
    "mirror_gain": -0.1,
    "extent_ratio": 1.0,
    "expected_dice": 0.75,
    "depth": 12,
}


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
        ({"is_reversed": True}, "run against"),
        ({"mirror_gain": 0.03}, "mirrored"),
        ({"mirror_gain": 0.01}, ""),
        ({"mirror_gain": 0.06, "is_reversed": True}, "mirrored"),
        ({"mirror_gain": 0.2, "similarity": 0.05}, "mirrored"),
        ({"mirror_gain": 0.05, "similarity": 0.05, "expected_dice": 0.5}, "does not look like"),
        ({"depth": 1, "is_reversed": True}, "one slice only"),
    ],
)
def test_warning(change: dict[str, float], word: str) -> None:
    warning = out_of_support(**{**USUAL, **change})
    assert word in warning
    assert bool(warning) == bool(word)
    assert "\n" not in warning


@pytest.mark.parametrize(
    ("similarities", "expected", "warned"),
    [((0.4,), POOR, False), ((0.1,), POOR, True), ((0.1, 0.4), POOR, False), ((0.1,), GOOD, False)],
)
def test_the_most_similar_scan_counts(
    similarities: tuple[float, ...], expected: float, warned: bool
) -> None:
    alignments = tuple(Alignment(np.arange(4.0), 1.0, each) for each in similarities)
    match = VolumeMatch(alignments, np.ones(len(similarities)), torch.zeros(4, 1, 1))
    pack: Any = SimpleNamespace(profiles=[SimpleNamespace(oriented=True)])
    trust = case_trust((expected,), match, VIEW, pack, -0.1)
    assert trust.expected_dice == (expected,)
    assert ("does not look like" in trust.warning) == warned


def test_little_is_expected_where_query_and_support_do_not_look_alike() -> None:
    meter = TrustMeter(1, 1)
    block = torch.zeros(2, 1, 16, 16)
    block[..., 4:12, 4:12] = 1.0
    meter.add(20 * block - 10, block)
    foreign, doubtful, alike, moved = (
        meter.expected_dice(likeness)[0] for likeness in (0.2, 0.3, 0.5, float("nan"))
    )
    assert foreign == 0.0 < doubtful < alike < 1.0
    assert moved == 1.0
