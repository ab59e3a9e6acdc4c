from __future__ import annotations

import numpy as np
import pytest
import torch
from made_scans import body, scan

from fsmis_components.selection.similarity import (
    by_gain,
    choose_scans,
    compare_scans,
    gains_of,
)

# scan 1 resembles 0 and 2 well; scan 3 resembles none
SIMILARITY = np.array(
    [
        [1.0, 0.8, 0.4, 0.1],
        [0.8, 1.0, 0.6, 0.2],
        [0.4, 0.6, 1.0, 0.0],
        [0.1, 0.2, 0.0, 1.0],
    ]
)


def test_where_scans_lie_in_each_other() -> None:
    found = compare_scans([scan("whole", body(0, 35)), scan("part", body(6, 27, seed=1))])
    assert np.allclose(found.shown[0, 1], [6, 27], atol=0.5)
    assert np.allclose(found.shown[1, 0], [-6, 29], atol=0.5)
    assert np.array_equal(found.shown[0, 0], [0, 35])


def test_slices_of_another_thickness_and_order() -> None:
    thick = body(4, 30, step=2.0, seed=1).flip(0)
    found = compare_scans([scan("thin", body(0, 35)), scan("thick", thick, spacing=2.0)])
    assert np.allclose(found.shown[0, 1], [4, 30], atol=1.0)
    assert found.values[0, 1] > 0.7


def test_the_like_are_similar() -> None:
    noise = torch.randn(24, 96, generator=torch.Generator().manual_seed(3))
    scans = [scan("a", body(0, 23)), scan("b", body(1, 24, seed=1)), scan("noise", noise)]
    similarity = compare_scans(scans).values
    assert np.array_equal(similarity, similarity.T)
    assert similarity[0, 1] > 0.8 > 0.5 > similarity[0, 2]


def test_gains_without_a_support() -> None:
    # lower quartile of three values: half-way between the two smallest
    gains = gains_of(SIMILARITY, [0, 1, 2, 3], [])
    assert gains[:, 0] == pytest.approx([0.25, 0.4, 0.2, 0.05])
    assert gains[:, 1] == pytest.approx([1.3 / 3, 1.6 / 3, 1.0 / 3, 0.3 / 3])


def test_gains_beside_a_support() -> None:
    # labelled: 0. Candidate 1 raises scans 2 and 3 from 0.4 and 0.1 to 0.6 and 0.2; the quartile of
    # two values lies a quarter of the way between them. The others raise no scan but themselves.
    gains = gains_of(SIMILARITY, [1, 2, 3], [0])
    assert gains[0] == pytest.approx([0.3 - 0.175, 0.4 - 0.25])
    assert gains[1:] == pytest.approx(np.zeros((2, 2)))


def test_choice() -> None:
    assert choose_scans(SIMILARITY, [0, 1, 2, 3], [], 1) == [1]
    assert choose_scans(SIMILARITY, [1, 2, 3], [0], 1) == [1]
    assert choose_scans(SIMILARITY, [2, 3], [0, 1], 9) == [2, 3]  # no more than there are


def test_order_by_gain() -> None:
    gains = np.array([[0.2, 0.1], [0.3, 0.0], [0.2, 0.4]])
    assert by_gain([5, 6, 7], gains) == [6, 7, 5]


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


def test_one_scan_alone() -> None:
    similarity = compare_scans([scan("only", body(0, 9))]).values
    assert gains_of(similarity, [0], []).tolist() == [[0, 0]]
    assert choose_scans(similarity, [0], [], 1) == [0]


def test_a_scan_of_one_slice() -> None:
    found = compare_scans([scan("whole", body(0, 9)), scan("slice", body(4, 4, seed=1))])
    assert np.isfinite(found.shown).all() and found.values[0, 1] == 0  # it has no profile
