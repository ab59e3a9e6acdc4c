from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from compare_masks import copy_mask, read, score, threshold_mask
from phantom import SHAPE, STRUCTURES, draw_subject, write_phantom

SMALL = (96, 80, 12)


def test_same_seed_same_subject_other_seed_another():
    first, again, other = (draw_subject(seed, 1, SMALL) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.affine, again.affine)
    assert not np.array_equal(first.label, other.label)


def test_files(phantom: Path):
    assert sorted(p.relative_to(phantom).as_posix() for p in phantom.rglob("*.nii.gz")) == [
        "query/image_2.nii.gz",
        "scoring/image_2.nii.gz",
        "scoring/label_2.nii.gz",
        "support/image_1.nii.gz",
        "support/label_1.nii.gz",
    ]
    image = nibabel.load(phantom / "query/image_2.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.abs(image.affine[:3, :3]).min() > 0.05, "the affine is to be oblique"
    spacing = image.header.get_zooms()
    assert spacing[2] > 2 * max(spacing[:2])


def test_storage_order_keeps_image_and_label_together(phantom: Path):
    stored = nibabel.load(phantom / "scoring/label_2.nii.gz")
    subject = draw_subject(1, 2, (88, 88, 14))
    assert np.array_equal(read(phantom / "scoring/label_2.nii.gz"), subject.label)
    assert np.array_equal(read(phantom / "query/image_2.nii.gz"), subject.image)
    corner = subject.affine @ [10, 20, 3, 1]
    assert np.allclose(stored.affine @ [87 - 10, 87 - 20, 3, 1], corner, atol=1e-3)


def test_every_structure_is_there_in_both_subjects(phantom: Path):
    for path in phantom.rglob("label_*.nii.gz"):
        values, counts = np.unique(read(path), return_counts=True)
        assert values.tolist() == [0, *STRUCTURES]
        assert counts.min() > 300


@pytest.mark.parametrize("shape", [SMALL, SHAPE], ids=["small", "full"])
def test_floors_are_low(tmp_path: Path, shape: tuple[int, int, int]):
    places = write_phantom(tmp_path, seed=1, shape=shape)
    support = tuple(read(places["support"] / f"{k}_1.nii.gz") for k in ("image", "label"))
    query = tuple(read(places["scoring"] / f"{k}_2.nii.gz") for k in ("image", "label"))
    table = score(support, query, mask=query[1])
    own, copied, thresholded = np.mean(list(table.values()), axis=0)
    assert own == 100
    assert copied < 55
    assert thresholded < 50


def test_copy_mask_keeps_relative_positions():
    label = np.zeros((2, 2, 2), np.uint8)
    label[1, 0, 1] = 5
    copied = copy_mask(label, (4, 2, 3))
    assert np.argwhere(copied == 5).tolist() == [[2, 0, 1], [2, 0, 2], [3, 0, 1], [3, 0, 2]]


def test_threshold_keeps_the_largest_component():
    support = np.zeros((8, 8, 2))
    support[:3, :3] = np.where(np.arange(18).reshape(3, 3, 2) % 2, 110, 90)
    image = np.roll(support, (4, 4), axis=(0, 1))
    expected = image > 0
    expected[4, 4, 0] = False
    image[0, 0, 0], image[4, 4, 0] = image[4, 4, 0], 0  # the same intensities, one voxel astray
    assert np.array_equal(threshold_mask(image, support, support > 0), expected)
