import numpy as np
import pytest

from fsmis_components.fitting.gate import doubtful_masks, judge, usual_volume


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((4, 20, 20), bool)
    mask[:, start:stop, :10] = True
    return mask


def test_masks_of_unusual_size_are_not_learned() -> None:
    usual = usual_volume([100.0], [90.0, 110.0, 0.0, 100.0, 20.0])
    found = doubtful_masks([105.0, 0.0, 20.0, 300.0], [0.8] * 4, [usual] * 4)
    assert found == (False, True, True, True)
    assert doubtful_masks([105.0], [0.1], [usual]) == (True,)


def test_the_labelled_scans_weigh_as_much_as_all_masks() -> None:
    # the teacher finds a quarter everywhere
    assert usual_volume([100.0], [25.0] * 50) == pytest.approx(50.0)


# masks of the student, of both judges and of the teacher; 0.01 ml a voxel, box(2, 12) is 4 ml
@pytest.mark.parametrize(
    ("boxes", "teacher"),
    [
        (((2, 12), (2, 12), (2, 11), (2, 6)), False),  # students agree
        (((0, 0), (0, 0), (0, 0), (2, 12)), True),  # the student found nothing
        (((0, 0), (0, 0), (0, 0), (2, 3)), True),  # of whatever size the teacher's is
        (((2, 12), (12, 20), (0, 0), (3, 12)), True),  # no judge sees the student's
        (((2, 12), (12, 20), (0, 0), (0, 0)), False),  # but the teacher found nothing
    ],
)
def test_who_answers(boxes: tuple[tuple[int, int], ...], teacher: bool) -> None:
    stays, dice = judge([box(*each) for each in boxes], 0.01, 0.6, usual=4.0)
    assert stays == teacher
    assert 0.0 <= dice <= 1.0
