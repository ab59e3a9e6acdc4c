from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fsmis_components.data.request_error import RequestError
from fsmis_components.transforms import LoadVolumed

OBLIQUE = np.array([[-0.9, 0.1, 0.3, 5], [0.1, -0.8, 0.4, -7], [0.1, 0.2, 3.0, 9], [0, 0, 0, 1.0]])


def test_voxels_and_place(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(data, OBLIQUE), tmp_path / "scan.nii.gz")
    image = LoadVolumed("image")({"image": str(tmp_path / "scan.nii.gz"), "other": 1})["image"]
    assert image.shape == (1, 3, 4, 5) and image.dtype == torch.float32
    np.testing.assert_array_equal(image[0].numpy(), data)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-6)
    # what MONAI Label writes a mask by
    np.testing.assert_allclose(image.meta["original_affine"], OBLIQUE, atol=1e-6)
    assert tuple(image.meta["spatial_shape"]) == (3, 4, 5)
    assert image.meta["filename_or_obj"] == str(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("2000 2000 400", "states 2000 x 2000 x 400 voxels"),
        ("4 4 -4", "damaged, or no such format"),
    ],
)
def test_nrrd_header_is_read_first(tmp_path: Path, sizes: str, words: str) -> None:
    """Its reader would fill the memory."""
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: raw\n\n"
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + bytes(64))
    with pytest.raises(RequestError, match=words):
        LoadVolumed("image")({"image": str(tmp_path / "scan.nrrd")})
