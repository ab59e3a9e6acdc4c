from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from volume_samples import ras_affine, save_nifti

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.training_cases import (
    excluded,
    fold_split,
    shown_structures,
    training_split,
)
from fsmis_components.data.volumes import load_image


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_is_not_used_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    for name in ("image_1.nii", "image_2.nii", "image_3.nii", "scan_9.nii"):
        (tmp_path / name).touch()
    monkeypatch.setenv("RANK", rank)
    assert len(training_split(tmp_path).train) == 2
    told = (
        f"{tmp_path}: 1 not used\n  scan_9.nii: not called image_<id>, as the scans beside it are\n"
    )
    assert capsys.readouterr().out == (told if rank == "0" else "")


def cases(count: int) -> list[Case]:
    return [Case(str(i), Path(f"image_{i}.nii.gz")) for i in range(count)]


def names(split: tuple[Case, ...]) -> list[int]:
    return [int(case.name) for case in split]


@pytest.mark.parametrize("count", [6, 20, 23, 60])
def test_every_case_is_tested_once(count: int) -> None:
    splits = [fold_split(cases(count), fold) for fold in range(5)]
    assert sorted(i for split in splits for i in names(split.test)) == list(range(count))
    for split in splits:
        parts = [names(split.train), names(split.support), names(split.test)]
        assert sorted(sum(parts, [])) == list(range(count))
        assert names(split.held_out) == names(split.support)
    if count == 20:  # as in SSL-ALPNet
        assert [(names(s.test)[0], names(s.support)) for s in (splits[0], splits[4])] == [
            (0, [4]),
            (16, [0]),
        ]


def test_without_a_fold_only_some_are_held_out() -> None:
    split = fold_split(cases(5), None)
    assert (names(split.train), names(split.held_out), split.test) == ([0, 1, 2, 3], [4], ())
    assert names(fold_split(cases(1), None).held_out) == [0]  # one scan must serve for both


def test_several_folders_are_split_one_by_one(tmp_path: Path) -> None:
    for name in ("image_1.nii", "image_2.nii", "image_3.nii"):
        (tmp_path / name).touch()
    split = training_split([tmp_path, tmp_path])
    assert (len(split.train), len(split.held_out)) == (4, 2)
    with pytest.raises(SystemExit, match="more than 5 cases"):
        training_split(str(tmp_path), fold=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shown_structures(tmp_path: Path, axis: int):
    label = np.zeros((4, 5, 6), np.uint8)
    label[1, 2, 3] = 7
    label[1, 2, 4] = 9
    image = save_nifti(tmp_path / "image.nii.gz", label.astype(np.int16), ras_affine())
    case = Case("a", image, save_nifti(tmp_path / "label.nii.gz", label, ras_affine()))
    grid = SliceGrid(axis, None, 8)
    shown = shown_structures(case, load_image(image), grid, [9, 7, 8])
    assert shown.shape == (3, label.shape[axis])
    places = [[1, 1], [2, 2], [4, 3]][axis]
    expected = [[index == place for index in range(label.shape[axis])] for place in places]
    assert shown.tolist() == [*expected, [False] * label.shape[axis]]


def test_rejects_exclusion(tmp_path: Path):
    with pytest.raises(DataError, match="exclude_rule: expected any or all, got 'none'"):
        excluded(np.ones((1, 2), bool), "none")
    image = save_nifti(tmp_path / "image.nii.gz", np.zeros((4, 5, 6), np.int16))
    with pytest.raises(DataError, match="setting 2 leaves out slices by their labels"):
        shown_structures(Case("a", image), load_image(image), SliceGrid(2, None, 8), [1])
