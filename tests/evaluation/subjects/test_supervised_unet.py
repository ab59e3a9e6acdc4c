from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from block_scans import AFFINE, block_image, block_label, write_nifti, write_scan

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet, draw_batch
from fsmis_components.support import SupportSet, load_support_set

TINY = {"steps": 2, "batch_size": 4, "spatial_size": 24, "filters": (4, 4, 4, 4)}


def subject(**changes: Any) -> SupervisedUNet:
    return SupervisedUNet(**{**TINY, "progress": False, **changes})


def support_of(folder: Path) -> SupportSet:
    return replace(load_support_set(folder), slices="all")


@pytest.fixture
def support(tmp_path: Path) -> SupportSet:
    write_scan(tmp_path / "support", 1, block_label({1: 3, 2: 7}))
    return support_of(tmp_path / "support")


def overlap(predicted: np.ndarray, label: np.ndarray, value: int) -> float:
    both = ((predicted == value) & (label == value)).sum()
    return float(2 * both / ((predicted == value).sum() + (label == value).sum()))


def test_learns_the_structures_of_its_support(support: SupportSet) -> None:
    method = subject(steps=60, filters=(8, 8, 16, 16), momentum=0.9, learning_rate=0.05)
    query = Volume(block_image(seed=5), AFFINE)
    predicted = method.predict(support, query)
    label = block_label({1: 3, 2: 7})
    assert predicted.shape == label.shape and predicted.dtype == np.uint8
    assert overlap(predicted, label, 3) > 0.6 and overlap(predicted, label, 7) > 0.6


def test_the_mask_lies_on_the_querys_own_grid(support: SupportSet, tmp_path: Path) -> None:
    method = subject(steps=20)
    scan = nibabel.Nifti1Image(block_image(seed=5), AFFINE)
    straight = method.predict(support, Volume(block_image(seed=5), AFFINE))
    assert straight.any()
    turn = nibabel.orientations.axcodes2ornt("PIL")
    turned = scan.as_reoriented(turn)
    path = write_nifti(tmp_path / "turned.nii.gz", np.asarray(turned.dataobj), turned.affine)
    predicted = method.predict(support, load_image(path))
    expected = nibabel.Nifti1Image(straight, AFFINE).as_reoriented(turn)
    assert np.array_equal(predicted, np.asarray(expected.dataobj))
    for shape in ((21, 35, 3), (9, 10, 2)):  # slices of any size
        image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        assert method.predict(support, Volume(image, AFFINE)).shape == shape


def test_same_seed_same_bits_and_the_global_random_state_is_left_alone(support: SupportSet) -> None:
    before = torch.get_rng_state()
    first, second, other = (
        torch.nn.utils.parameters_to_vector(subject(amp=True, seed=s).train(support).parameters())
        for s in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_image_and_label_are_bent_alike_and_structures_are_sure_to_come() -> None:
    """Ten slices: structure 1, bright, in slice 3; structure 2, dark, in slices 6 and 7."""
    images = torch.zeros(10, 1, 32, 24)
    masks = torch.zeros(10, 2, 32, 24, dtype=torch.bool)
    masks[3, 0, 8:20, 6:18] = True
    masks[6:8, 1, 12:26, 4:16] = True
    images[:, 0][masks[:, 0]] = 4.0
    images[:, 0][masks[:, 1]] = -4.0
    seen = set()
    for seed in range(20):
        image, label = draw_batch(images, masks, 6, np.random.default_rng(seed))
        assert image.shape == label.shape == (6, 1, 32, 24)
        assert label[:2].flatten(1).any(1).all()  # a third of six
        seen |= set(label.unique().tolist())
        for picture, classes in zip(image, label, strict=True):
            if (classes == 1).sum() > 40:
                assert picture[classes == 1].mean() > picture[classes == 0].mean() + 1
            if (classes == 2).sum() > 40:
                assert picture[classes == 2].mean() < picture[classes == 0].mean() - 1
    assert seen == {0, 1, 2}


def test_rejects(support: SupportSet, tmp_path: Path) -> None:
    scan = support.scans[0]
    broken = replace(scan, image=Volume(np.full(scan.image.shape, np.nan, np.float32), AFFINE))
    with pytest.raises(DataError, match="the loss of step 0 is no number; lower the learning rate"):
        subject(modality="ct").train(replace(support, scans=(broken,)))
    label = block_label({1: 1})
    label[20, 3, 5] = 2
    write_scan(tmp_path / "small", 1, label)
    with pytest.raises(DataError, match=r"structure_2 \(label value 2\) is smaller than one pixel"):
        subject(spatial_size=8).train(support_of(tmp_path / "small"))
