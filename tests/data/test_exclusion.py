from pathlib import Path

import numpy as np
import pytest
from volume_samples import ras_affine, save_nifti

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.training_cases import excluded, shown_structures
from fsmis_components.data.volumes import load_image


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


def test_excluded():
    shown = np.array([[True, True, False, False], [True, False, True, False]])
    assert excluded(shown, "any").tolist() == [True, True, True, False]
    assert excluded(shown, "all").tolist() == [True, False, False, False]


def test_rejects(tmp_path: Path):
    with pytest.raises(DataError, match="exclude_rule: expected any or all, got 'none'"):
        excluded(np.ones((1, 2), bool), "none")
    image = save_nifti(tmp_path / "image.nii.gz", np.zeros((4, 5, 6), np.int16))
    with pytest.raises(DataError, match="setting 2 leaves out slices by their labels"):
        shown_structures(Case("a", image), load_image(image), SliceGrid(2, None, 8), [1])
