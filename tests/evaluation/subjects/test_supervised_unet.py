from __future__ import annotations

import inspect
import json
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
from fsmis_components.evaluation.subjects import supervised_unet
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet
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


def test_slices_of_any_size(support: SupportSet) -> None:
    for shape in ((21, 35, 3), (9, 10, 2)):
        image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        assert subject().predict(support, Volume(image, AFFINE)).shape == shape


def test_scans_of_unlike_size_train_together(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    shape = (30, 22, 14)
    write_scan(tmp_path, 2, block_label(shape=shape), block_image(shape))
    stack = subject()._stack(support_of(tmp_path))
    assert stack.images.shape == (26, 1, 32, 24) and stack.masks.shape == (26, 2, 32, 24)
    # the first scan's pixels are centred: 24 x 20 on 32 x 24
    assert torch.equal(stack.masks[3, 0, 4:28, 2:22], torch.from_numpy(block_label()[..., 3] == 1))
    assert torch.equal(
        stack.masks[15, 1, 1:31, 1:23], torch.from_numpy(block_label(shape=shape)[..., 3] == 2)
    )


def test_trains_once_per_support(support: SupportSet, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = []

    def counted(*arguments: Any) -> None:
        trainings.append(arguments[-1])

    monkeypatch.setattr(supervised_unet, "train", counted)
    method = subject()
    first = method.trained(support)
    assert method.trained(replace(support, source="elsewhere")) is first
    method.trained(replace(support, structures=support.structures[:1]))
    assert trainings == ["training on 1"] * 2


def test_trained_weights_are_kept(
    support: SupportSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    state = subject(cache_dir=cache).trained(support).state_dict()
    assert len(list(cache.iterdir())) == 1

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(supervised_unet, "train", refuse)
    again = subject(cache_dir=cache).trained(support).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    for other in ({"seed": 1}, {"steps": 3}, {"amp": True}, {"learning_rate": 0.1}):
        with pytest.raises(AssertionError, match="trained again"):
            subject(cache_dir=cache, **other).trained(support)
    scan = support.scans[0]
    changed = np.asarray(scan.label.data).copy()
    changed[0, 0, 0] = 3
    scans = (replace(scan, label=replace(scan.label, data=changed)),)
    with pytest.raises(AssertionError, match="trained again"):
        subject(cache_dir=cache).trained(replace(support, scans=scans))


def test_identity_holds_all_that_decides_the_masks() -> None:
    identity = subject().identity(0, None)
    arguments = set(inspect.signature(SupervisedUNet).parameters)
    assert set(identity) == arguments - {"cache_dir", "progress"}
    assert json.loads(json.dumps(identity)) == identity
    assert identity["filters"] == [4, 4, 4, 4] and identity["steps"] == 2


def test_rejects_a_support_of_three_slices(support: SupportSet) -> None:
    with pytest.raises(DataError, match="learns from completely labelled slices"):
        subject().predict(replace(support, slices="sections"), support.scans[0].image)


def test_rejects_a_structure_below_a_pixel(tmp_path: Path) -> None:
    label = block_label({1: 1})
    label[20, 3, 5] = 2
    write_scan(tmp_path, 1, label)
    with pytest.raises(DataError, match=r"structure_2 \(label value 2\) is smaller than one pixel"):
        subject(spatial_size=8).trained(support_of(tmp_path))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"filters": (4, 4, 4)}])
def test_rejects_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="at least 1 and filters for at least 4 levels"):
        subject(**wrong)
