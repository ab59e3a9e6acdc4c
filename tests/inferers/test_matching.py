from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fsmis_components.inferers.matching import (
    VolumeMatch,
    neighbours,
    scan_shares,
    search_range,
    spread_thirds,
)
from fsmis_components.inferers.z_alignment import Alignment
from fsmis_components.support.scan_profile import ScanProfile

# structure 0: slices 0, 1, 2 are its sections; structure 1: slice 3 answers for all three
SECTIONS = torch.zeros(2, 4, 3, dtype=torch.bool)
SECTIONS[0, :3] = torch.eye(3, dtype=torch.bool)
SECTIONS[1, 3] = True


def test_thirds_of_the_whole_volume() -> None:
    weights = spread_thirds(7, SECTIONS)  # floor(3 z / 7): 0 0 0 1 1 2 2
    assert weights.shape == (7, 2, 4)
    assert weights[:, 0].argmax(-1).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert torch.equal(weights[:, 0].sum(-1), torch.ones(7))
    assert torch.equal(weights[:, 1], torch.tensor([0.0, 0, 0, 1]).expand(7, 4))


def test_labelled_slices_beside_each_other_answer_together() -> None:
    places = np.array([2, 3, 4, 5, 6, 7, 11])
    valid = np.array([[True] * 6 + [False], [False] * 5 + [True, True]])
    near = neighbours(np.array([-5.0, 5.8, 10.0]), places, valid, 5)
    assert near[0, 0].tolist() == [True] * 5 + [False, False]  # before its first slice
    assert near[1, 0].tolist() == [False] + [True] * 5 + [False]
    # 7 and 11 are apart: the nearer one answers alone
    assert near[1, 1].tolist() == [False] * 5 + [True, False]
    assert near[2, 1].tolist() == [False] * 6 + [True]
    assert not neighbours(np.zeros(1), places, np.zeros((1, 7), bool), 5).any()


def profile_of(depth: int, *extents: tuple[float, float]) -> ScanProfile:
    shapes = torch.zeros(len(extents), depth, 64, 48, dtype=torch.uint8)
    return ScanProfile("a", 4.0, torch.zeros(depth, 4), shapes, torch.tensor(extents))


def test_a_structure_is_looked_for_in_its_extent() -> None:
    profile = profile_of(10, (2.5, 6.5), (float("nan"), float("nan")))
    places = np.array([1.0, 2.0, 3.0, 7.0, 8.0])
    assert search_range(places, profile, 0.0)[:, 0].tolist() == [False, False, True, False, False]
    assert search_range(places, profile, 1.0)[:, 0].tolist() == [False, True, True, True, False]
    assert not search_range(places, profile, 9.0)[:, 1].any()  # not labelled in this scan


def test_the_field_of_the_support_on_another_scan() -> None:
    profile = profile_of(4, (0.0, 0.0))
    assert profile.field_on((254, 190), cell=4) == (1.0, 1.0)  # 64 x 48 cells too
    assert profile.field_on((512, 96), cell=4) == (0.5, 2.0)


def test_what_the_end_of_the_scan_cuts_off_may_go_on() -> None:
    # eight slices; the first structure is cut off at their end, the second ends before it
    profile = profile_of(8, (3.5, 7.5), (2.5, 6.5))
    assert profile.open_ends.tolist() == [[False, True], [False, False]]
    found = search_range(np.array([3.0, 4.0, 7.0, 9.0, 10.0]), profile, 0.0)
    assert found[:, 0].tolist() == [False, True, True, True, False]
    assert found[:, 1].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(("first", "centred"), [(0.0, True), (1.0, True), (4.0, False)])
def test_whether_a_query_shows_the_same_part(first: float, centred: bool) -> None:
    pack: Any = SimpleNamespace(profiles=[profile_of(20, (2.5, 6.5))] * 2)
    lines = tuple(Alignment(start + np.arange(20.0), 1.0, 0.5) for start in (first, 9.0))
    # of the second scan no one asks
    match = VolumeMatch(lines, np.array([1.0, 0.0]), torch.zeros(20, 1, 1))
    assert match.is_centred(pack) is centred


def test_scans_count_by_similarity() -> None:
    shares = scan_shares(np.array([0.5, 0.5, 0.1]))
    assert shares.tolist() == [0.5, 0.5, 0.0]  # one that is unlike is not asked
    close = scan_shares(np.array([0.5, 0.48]))
    assert close[0] > close[1] > 0 and close.sum() == pytest.approx(1.0)
