from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_records import DEPTH, make_record, make_row, write_case

from fsmis_components.evaluation.report.case_pictures import (
    case_pictures,
    chosen_slices,
    crop_about,
    picked_units,
)
from fsmis_components.evaluation.report.series import Results


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


def sections(tmp_path: Path, **fields: object) -> list[str]:
    files = write_case(tmp_path, "c1") | fields
    results = Results([make_record([make_row(81.25)], **files)])
    return case_pictures(results, results.series[0], tmp_path)


def test_pictures_of_a_case(tmp_path: Path) -> None:
    (html,) = sections(tmp_path)
    assert "Only case: c1" in html and "liver 81.2" in html
    captions = [f"slice {number} of {DEPTH}" for number in (3, 4, 5, 6)]
    captions.append(f"slice 7 of {DEPTH}, no label")
    assert html.count("<svg") == len(captions)
    for caption in captions:
        assert f"<figcaption>{caption}</figcaption>" in html


def test_slices_are_turned_and_have_the_proportions_of_the_body(tmp_path: Path) -> None:
    """The scan is stored from right to left, so the x axis is kept and the y axis turned."""
    (html,) = sections(tmp_path)
    # outlined: x 5 to 11, y 6 to 13 of 20 x 30; 7 + 2 * 2 wide, 45 % of 30 high, from above
    assert 'viewBox="0 0 16.5 14"' in html


def test_models_that_share_the_structures_are_joined(tmp_path: Path) -> None:
    files = write_case(tmp_path, "c1")
    spleen = make_row(20, structure="spleen", value=4)
    results = Results([make_record([make_row(80)], **files), make_record([spleen], **files)])
    (html,) = case_pictures(results, results.series[0], tmp_path)
    assert "liver 80.0" in html and "spleen 20.0" in html and ">50.0 (fold 0)<" in html


def test_the_first_choice_of_support_is_shown(tmp_path: Path) -> None:
    files = write_case(tmp_path, "c1")
    records = [make_record([make_row(90, choice=c)], **files) for c in (2, 1)]
    records[1].rows[0] = make_row(70, choice=1)
    results = Results(records)
    (html,) = case_pictures(results, results.series[0], tmp_path)
    assert "liver 70.0" in html and ">80.0 (fold 0)<" in html


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"image": "gone.nii.gz"}, "gone.nii.gz: there is no such file"),
        ({"label": "gone.nii.gz"}, "gone.nii.gz: there is no such file"),
        ({"masks": {"wv/sections": "gone.nii.gz"}}, "there is no such file"),
        ({"masks": {}}, "kept no label map of liver"),
    ],
)
def test_a_missing_file_is_told(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    (html,) = sections(tmp_path, **fields)
    assert "No picture of this case" in html and words in html
    assert "liver 81.2" in html and "<svg" not in html


def test_a_mask_of_another_grid_is_told(tmp_path: Path) -> None:
    import nibabel

    files = write_case(tmp_path, "c1")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "m.nii")
    (html,) = sections(tmp_path, masks={"wv/sections": "m.nii"}, image=files["image"])
    assert "No picture of this case" in html and "m.nii" in html
