from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from compare_masks import read, score
from phantom import STRUCTURES, draw_subject

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


def test_the_floor_is_low(phantom: Path):
    support = read(phantom / "support/label_1.nii.gz")
    query = read(phantom / "scoring/label_2.nii.gz")
    own, copied = np.mean(list(score(support, query, mask=query).values()), axis=0)
    assert own == 100 and copied < 55
