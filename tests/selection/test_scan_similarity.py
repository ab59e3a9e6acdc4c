from __future__ import annotations

import numpy as np
import pytest
from made_scans import body, scan

from fsmis_components.selection.similarity import (
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
