from __future__ import annotations

import pytest
import torch

from fsmis_components.support.sections import plan_sections, section_of_slice, section_slices


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        (range(3, 12), (4, 7, 10)),  # 9 slices: positions 1, 4, 7
        ([2, 3, 5, 6, 7, 9, 11], (3, 6, 9)),  # 7 slices with gaps: positions 1, 3, 5
        ([4, 5], (4, 5, 5)),
        ([8], (8, 8, 8)),
    ],
)
def test_sections_at_one_half_and_two_sixths_from_the_ends(
    slices: range, expected: tuple[int, int, int]
) -> None:
    assert section_slices(list(slices)) == expected


def test_shared_slices_are_planned_once() -> None:
    chosen, table = plan_sections([[1, 2, 3], [3], []])
    assert chosen == [1, 2, 3]
    expected = torch.zeros(3, 3, 3, dtype=torch.bool)
    expected[0] = torch.eye(3, dtype=torch.bool)
    expected[1, 2] = True  # one slice answers for all three sections
    assert torch.equal(table, expected)


def test_thirds_of_an_extent() -> None:
    # z from 10 to 20: thirds begin at 10, 13.3 and 16.7; the last slice belongs to the last third
    thirds = [section_of_slice(index, 10, 20) for index in range(8, 23)]
    assert thirds == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert section_of_slice(13, 10, 19) == 1  # exactly on the border
    assert section_of_slice(5, 5, 5) == 0
