from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_scans import block_label, write_scan

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.evaluation.protocols import RULES, with_labelled_slices
from fsmis_components.support import load_support_set

CASES = [Case(str(number), Path(f"image_{number}.nii.gz")) for number in range(20)]


def task(rule: str, fold: int, shots: int = 1, choice: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the support and of the queries."""
    found = RULES[rule].task(CASES, fold, num_folds=5, shots=shots, choice=choice)
    support, queries = ([int(case.name) for case in c] for c in (found.support, found.queries))
    return support, queries


def test_alp_folds_are_disjoint_and_supported_by_the_next_case() -> None:
    support, queries = zip(*(task("ep1-alp", fold) for fold in range(5)), strict=True)
    assert list(queries) == [list(range(4 * i, 4 * i + 4)) for i in range(5)]
    assert list(support) == [[4], [8], [12], [16], [0]]


@pytest.mark.parametrize(
    ("fold", "shots", "choice", "expected"),
    [(0, 3, 0, [4, 5, 6]), (0, 1, 2, [6]), (3, 5, 2, [18, 19, 0, 1, 2]), (4, 1, 15, [15])],
)
def test_alp_shots_and_choices_go_on_from_the_next_case(
    fold: int, shots: int, choice: int, expected: list[int]
) -> None:
    support, queries = task("ep1-alp", fold, shots, choice)
    assert support == expected and not set(support) & set(queries)


def test_alp_rejects_a_support_among_the_queries() -> None:
    with pytest.raises(DataError, match="2 support scans at choice 15 are not to be had"):
        task("ep1-alp", 0, shots=2, choice=15)


def test_qnet_lists_overlap_and_leave_five_cases_out() -> None:
    support, queries = zip(*(task("ep1-qnet", fold, choice=2) for fold in range(5)), strict=True)
    # the last list is in the order of the numbers, so its third case is 17 and not 18
    assert list(support) == [[2], [6], [10], [14], [17]]
    assert queries[4] == [0, 16, 18, 19]
    tested = sorted(name for fold in queries for name in fold)
    assert sorted({*range(20)} - set(tested)) == [2, 6, 10, 14, 17]
    assert sorted(name for name in set(tested) if tested.count(name) == 2) == [0, 4, 8, 12, 16]


def test_sections_of_both_rules() -> None:
    present = np.zeros((9, 3), bool)
    present[[2, 3, 4, 5, 7], 0] = True  # with a gap
    present[6, 2] = True
    # alp: thirds of the range 2..7, the gap is scored too
    assert RULES["ep1-alp"].sections(present).T.tolist() == [
        [-1, -1, 0, 0, 1, 1, 2, 2, -1],
        [-1] * 9,
        [-1, -1, -1, -1, -1, -1, 0, -1, -1],
    ]
    # qnet: the five slices that hold it in parts of 1, 2 and 2
    assert RULES["ep1-qnet"].sections(present).T.tolist() == [
        [-1, -1, 0, 1, 1, 2, -1, 2, -1],
        [-1] * 9,
        [-1, -1, -1, -1, -1, -1, 2, -1, -1],
    ]


def test_each_structure_keeps_its_own_three_slices(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    support = load_support_set(tmp_path)
    hidden = with_labelled_slices(support, SliceGrid(2, 1.0, 24), "sections")
    label = np.asarray(hidden.scans[0].label.data)
    # structure 1 fills slices 2..10, structure 2 fills 3..8
    assert np.flatnonzero((label == 1).any((0, 1))).tolist() == [3, 6, 9]
    assert np.flatnonzero((label == 2).any((0, 1))).tolist() == [4, 6, 8]
    whole = np.asarray(support.scans[0].label.data)
    assert np.array_equal(label[..., 6], whole[..., 6])
    assert hidden.scans[0].image is support.scans[0].image
    assert (hidden.slices, support.slices) == ("sections", "all")
