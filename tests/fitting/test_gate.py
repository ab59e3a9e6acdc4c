from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.fitting.gate import (
    GateRule,
    Opinion,
    UsualVolumes,
    decide,
    doubtful_masks,
    mask_dice,
)


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((4, 20, 20), bool)
    mask[:, start:stop, :10] = True
    return mask


def test_masks_of_unusual_size_are_not_learned() -> None:
    usual = [UsualVolumes.of([100.0], [90.0, 110.0, 0.0, 100.0, 20.0])]
    volumes = {"same": [105.0], "missing": [0.0], "small": [20.0], "large": [300.0]}
    expected = dict.fromkeys(volumes, (0.8,))
    doubtful = doubtful_masks(volumes, expected, usual, GateRule())
    assert doubtful == {"same": (False,), "missing": (True,), "small": (True,), "large": (True,)}
    low = doubtful_masks({"same": [105.0]}, {"same": (0.1,)}, usual, GateRule())
    assert low == {"same": (True,)}


def test_a_structure_that_nobody_has_is_no_reason_for_doubt() -> None:
    assert UsualVolumes.of([], [0.0]).ratio(0.0) == 1.0


def test_the_labelled_scans_weigh_as_much_as_all_masks() -> None:
    usual = UsualVolumes.of([100.0], [25.0] * 50)  # the teacher finds a quarter everywhere
    assert usual.median == pytest.approx(50.0)


def test_dice_of_empty_masks_is_one() -> None:
    nothing = np.zeros((2, 2, 2), bool)
    assert mask_dice(nothing, nothing) == 1.0
    assert mask_dice(nothing, ~nothing) == 0.0


def test_the_student_answers_where_students_agree() -> None:
    opinion = Opinion.of([box(2, 12), box(2, 12), box(2, 11), box(2, 6)], 0.01, 0.6)
    (verdict,) = decide([opinion])
    assert not verdict.teacher and verdict.expected_dice > 0.8
