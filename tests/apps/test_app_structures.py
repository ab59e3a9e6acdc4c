from __future__ import annotations

from pathlib import Path

import numpy as np
from block_scans import block_image, block_label, write_nifti
from lib.structures import LabelValues, slugs, structure_names

from fsmis_components.support.labelled_volume import LabelledVolume


def volume(name: str, values: dict[int, str]) -> LabelledVolume:
    return LabelledVolume(name, f"{name}.nii.gz", f"label_{name}.nii.gz", values)


OLD = volume("old", {1: "Liver", 2: "spleen"})
MID = volume("mid", {1: "spleen", 2: "liver"})
NEW = volume("new", {5: "left kidney"})
USABLE = {OLD: (1, 2), MID: (1, 2), NEW: (5,)}


def test_names_are_those_of_the_first_label_in_the_order_of_its_values() -> None:
    assert structure_names(USABLE) == ["Liver", "spleen", "left kidney"]
    assert structure_names({}) == []


def test_a_name_whose_value_is_not_in_the_label_is_no_structure() -> None:
    assert structure_names({OLD: (2,)}) == ["spleen"]


def test_slugs_are_safe_and_differ() -> None:
    names = ["Left kidney", "left_kidney", "Läsion 2", "?!"]
    assert slugs(names) == {
        "left_kidney": "Left kidney",
        "left_kidney_2": "left_kidney",
        "l_sion_2": "Läsion 2",
        "structure": "?!",
    }


def test_labels_are_read_once_until_they_change(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "scan.nii.gz", block_image(seed=1))
    label = write_nifti(tmp_path / "label.nii.gz", block_label())
    values = LabelValues()
    first = LabelledVolume.of("scan", image, label)
    held = tuple(int(value) for value in np.unique(block_label()) if value)
    assert values.usable([first]) == {first: held}
    write_nifti(label, np.zeros_like(block_label()))
    assert values.usable([first]) == {first: held}  # as it was found
    assert values.usable([LabelledVolume.of("scan", image, label)]) == {}  # empty now
