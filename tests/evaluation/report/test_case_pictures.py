from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from made_records import make_record, make_row, write_case
from matplotlib.image import imread

from fsmis_components.evaluation.case_pictures import (
    case_picture,
    chosen_slices,
    crop_about,
    picked_units,
)


@pytest.mark.parametrize(
    "dice, expected",
    [
        ([], []),
        ([5], [("Only case", 5)]),
        ([5, 7], [("Best case", 7), ("Worst case", 5)]),
        ([9, 5, 7], [("Best case", 9), ("Median case", 7), ("Worst case", 5)]),
    ],
)
def test_picked(dice: list[float], expected: list[tuple[str, float]]) -> None:
    means = {(0, f"c{index}"): value for index, value in enumerate(dice)}
    assert [(rank, means[unit]) for rank, unit in picked_units(means)] == expected


def stack(*slices: int) -> np.ndarray:
    masks = np.zeros((20, 4, 4), bool)
    masks[list(slices), 1, 1] = True
    return masks


def test_slices_are_spread_over_the_label() -> None:
    truth = stack(*range(5, 15))
    assert chosen_slices(truth, stack(7)) == [(6, ""), (8, ""), (10, ""), (12, ""), (14, "")]


def test_the_largest_false_slice_beyond_the_label_is_shown() -> None:
    predicted = stack(2, 16)
    predicted[16, 2, 2] = True
    assert chosen_slices(stack(5, 6), predicted) == [(5, ""), (6, ""), (16, ", no label")]


def test_slices_without_a_label() -> None:
    assert chosen_slices(stack(), stack(3)) == [(3, "")]
    assert [number for number, _ in chosen_slices(stack(), stack())] == [2, 6, 10, 14, 18]


def test_crop() -> None:
    outlined = np.zeros((100, 200), bool)
    outlined[0:10, 90:190] = True
    rows, columns = crop_about(outlined)
    assert rows == slice(0, 45)  # not smaller than a part of the slice, nor beyond it
    assert columns == slice(76, 200)  # 100 + 2 * 12 wide, moved to end at the border
    assert crop_about(np.zeros((10, 12), bool)) == (slice(0, 10), slice(0, 12))


def test_the_picture_shows_label_and_prediction(tmp_path: Path) -> None:
    """The label's outline is white, that of the prediction has the colour of its structure."""
    record = make_record([make_row(80)], **write_case(tmp_path, "c1"))
    masks = {"liver": tmp_path / "mask_c1.nii.gz"}
    address = case_picture(record, masks, {"liver": 1}, ["#ff0000"])
    picture = imread(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert picture.shape[1] > 4 * picture.shape[0]  # four slices of the label, one beyond it
    red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.1)
    fifth = picture.shape[1] // 5
    # the prediction lies one slice above the label: none in the first slice, all in the last
    assert not red[:, :fifth].any() and red[:, -fifth:].any()
