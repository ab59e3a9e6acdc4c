"""Folds are disjoint, cover all cases and keep the support out of training and test."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.training_cases import fold_split, training_split


def cases(count: int) -> list[Case]:
    return [Case(str(i), Path(f"image_{i}.nii.gz")) for i in range(count)]


def names(split: tuple[Case, ...]) -> list[int]:
    return [int(case.name) for case in split]


def test_borders_and_support_of_ssl_alpnet() -> None:
    first, last = fold_split(cases(20), 0), fold_split(cases(20), 4)
    assert (names(first.test), names(first.support)) == ([0, 1, 2, 3], [4])
    assert (names(last.test), names(last.support)) == ([16, 17, 18, 19], [0])
    assert names(first.train) == list(range(5, 20))
    assert names(first.held_out) == [4]


@pytest.mark.parametrize("count", [6, 20, 23, 60])
def test_every_case_is_tested_once(count: int) -> None:
    splits = [fold_split(cases(count), fold) for fold in range(5)]
    assert sorted(i for split in splits for i in names(split.test)) == list(range(count))
    for split in splits:
        parts = [names(split.train), names(split.support), names(split.test)]
        assert sorted(sum(parts, [])) == list(range(count))


def test_without_a_fold_only_some_are_held_out() -> None:
    split = fold_split(cases(5), None)
    assert (names(split.train), names(split.held_out), split.test) == ([0, 1, 2, 3], [4], ())
    assert names(fold_split(cases(1), None).held_out) == [0]  # one scan must serve for both


def test_rejects() -> None:
    with pytest.raises(DataError, match="from 0 to 4, got 5"):
        fold_split(cases(20), 5)
    with pytest.raises(DataError, match="more than 5 cases, 5 were found"):
        fold_split(cases(5), 0)


def test_several_folders_are_split_one_by_one(phantom_dataset: Path) -> None:
    split = training_split([phantom_dataset, phantom_dataset])
    assert (len(split.train), len(split.held_out)) == (6, 2)
    with pytest.raises(SystemExit, match="more than 5 cases"):
        training_split(str(phantom_dataset), fold=0)
