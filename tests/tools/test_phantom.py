from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from compare_masks import read, score
from phantom import draw_subject

SMALL = (96, 80, 12)


def test_storage_order_keeps_image_and_label_together(phantom: Path):
    stored = nibabel.load(phantom / "scoring/label_2.nii.gz")
    subject = draw_subject(1, 2, (88, 88, 14))
    assert np.array_equal(read(phantom / "scoring/label_2.nii.gz"), subject.label)
    assert np.array_equal(read(phantom / "query/image_2.nii.gz"), subject.image)
    corner = subject.affine @ [10, 20, 3, 1]
    assert np.allclose(stored.affine @ [87 - 10, 87 - 20, 3, 1], corner, atol=1e-3)


def test_the_floor_is_low(phantom: Path):
    support = read(phantom / "support/label_1.nii.gz")
    query = read(phantom / "scoring/label_2.nii.gz")
    own, copied = np.mean(list(score(support, query, mask=query).values()), axis=0)
    assert own == 100 and copied < 55
