import numpy as np
import pytest
import torch

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.selection.descriptors import ScanDescriptors
from fsmis_components.selection.proposal import choose_scans, compare_scans, gains_of

# scan 1 resembles 0 and 2 well; scan 3 resembles none
SIMILARITY = np.array(
    [[1.0, 0.8, 0.4, 0.1], [0.8, 1.0, 0.6, 0.2], [0.4, 0.6, 1.0, 0.0], [0.1, 0.2, 0.0, 1.0]]
)


def scan(first: int, last: int, seed: int) -> ScanDescriptors:
    """The places first to last of a body; neighbours look alike, each seed is another patient."""
    draw = torch.Generator().manual_seed(7)
    places = torch.arange(first, last + 1)[:, None]
    frequencies = torch.rand(96, generator=draw) * 0.5
    phases = torch.rand(96, generator=draw) * 6.28
    own = torch.randn(1, 96, generator=torch.Generator().manual_seed(seed))
    descriptors = torch.cos(places * frequencies + phases) + own
    return ScanDescriptors(str(seed), SliceGrid(2, 1.0, 64), 1.0, descriptors.half())


def test_where_scans_lie_in_each_other() -> None:
    _, shown = compare_scans([scan(0, 35, seed=0), scan(6, 27, seed=1)])
    assert np.allclose(shown[0, 1], [6, 27], atol=0.5)
    assert np.allclose(shown[1, 0], [-6, 29], atol=0.5)
    assert np.array_equal(shown[0, 0], [0, 35])


def test_gains_beside_a_support() -> None:
    # labelled: 0. Candidate 1 raises scans 2 and 3 from 0.4 and 0.1 to 0.6 and 0.2; the quartile of
    # two values lies a quarter of the way between them. The others raise no scan but themselves.
    gains = gains_of(SIMILARITY, [1, 2, 3], [0])
    assert gains[0] == pytest.approx([0.3 - 0.175, 0.4 - 0.25])
    assert gains[1:] == pytest.approx(np.zeros((2, 2)))


def test_liked_by_many_before_loved_by_few() -> None:
    similarity = np.full((9, 9), 0.1)
    similarity[0, 1:] = similarity[1:, 0] = 0.5
    similarity[8, 1:5] = similarity[1:5, 8] = 1.0
    similarity[8, 5:8] = similarity[5:8, 8] = 0.4  # a mean of 0.71 to 0.5
    assert choose_scans(similarity, [0, 8], [], 1) == [0]


def test_two_groups_get_one_scan_each() -> None:
    groups = np.kron(np.eye(2), np.full((3, 3), 0.9)) + 0.05
    groups[1, [0, 2]] = groups[[0, 2], 1] = 1.0  # the middle of the first
    groups[4, [3, 5]] = groups[[3, 5], 4] = 1.0  # and of the second
    assert choose_scans(groups, range(6), [], 2) == [1, 4]
    assert choose_scans(groups, range(6), [4], 1) == [1]
