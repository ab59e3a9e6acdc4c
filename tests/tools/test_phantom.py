from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from phantom import draw_subject


def test_storage_order_keeps_image_and_label_together(phantom: Path):
    stored = nibabel.load(phantom / "scoring/label_2.nii.gz")
    subject = draw_subject(1, 2, (88, 88, 14))
    for name, expected in (("scoring/label", subject.label), ("query/image", subject.image)):
        scan = nibabel.as_closest_canonical(nibabel.load(phantom / f"{name}_2.nii.gz"))
        assert np.array_equal(np.asarray(scan.dataobj), expected)
    corner = subject.affine @ [10, 20, 3, 1]
    assert np.allclose(stored.affine @ [87 - 10, 87 - 20, 3, 1], corner, atol=1e-3)
