from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_scans import block_image, block_label, write_nifti

from fsmis_components.data.errors import DataError
from fsmis_components.support.support_request import LabelledVolume, common_structures


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "case.nii.gz", block_image())


def volume(image: Path, label: np.ndarray, names: dict[int, str] | None = None) -> LabelledVolume:
    path = write_nifti(image.parent / "label" / "case.nii.gz", label)
    return LabelledVolume.of("case", image, path, names)


@pytest.mark.parametrize(
    ("label", "names", "words"),
    [
        (block_label({1: 1}) * 0, {1: "liver"}, r"label is empty .* label a structure\."),
        (block_label({1: 1, 2: 2}), {1: "liver"}, r"label value 2 has no name .* 1 \(liver\)"),
        (block_label({1: 1}), {1: " "}, "label value 1 has no name"),
        (block_label({1: 1, 2: 2}), {1: "Liver", 2: "liver "}, "1 and 2 are both called liver"),
        (block_label()[:-1], {}, r"shapes differ, \(23, 20, 12\) against \(24, 20, 12\)"),
    ],
)
def test_what_cannot_serve(image: Path, label: np.ndarray, names: dict, words: str) -> None:
    labelled = volume(image, label, names)
    with pytest.raises(DataError, match=words) as raised:
        labelled.values()
    assert str(image.parent) in str(raised.value)


def test_a_file_that_changes_is_another_volume(image: Path) -> None:
    labelled = volume(image, block_label())
    before = labelled.key
    again = volume(image, block_label({1: 1}))
    assert again.key != before
    with pytest.raises(DataError, match="was changed while it was read"):
        labelled.load()
    image.unlink()
    with pytest.raises(DataError, match="no such file"):
        LabelledVolume.of("case", image, labelled.label)


def named(**names: int) -> LabelledVolume:
    return LabelledVolume("x", "i", "l", {value: name for name, value in names.items()})


def test_names_decide_what_values_mean() -> None:
    volumes = {named(liver=1, spleen=2): (1, 2), named(Spleen=1, gut=2, liver=5): (1, 2, 5)}
    names, values = common_structures(volumes)
    # the gut's own value is the spleen's already
    assert names == {1: "liver", 2: "spleen", 3: "gut"}
    assert values == [{1: 1, 2: 2}, {1: 2, 2: 3, 5: 1}]
