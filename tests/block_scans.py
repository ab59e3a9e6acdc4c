"""Small scans with one bright block per structure, whose right segmentation is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (24, 20, 12)
# label value: slices in x, y, z, and intensity
BLOCKS = {
    1: ((4, 12), (4, 10), (2, 11), 100.0),
    2: ((14, 20), (8, 16), (3, 9), 200.0),
}
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


def block_label(
    values: Mapping[int, int] | None = None, shape: tuple[int, int, int] = SHAPE
) -> np.ndarray:
    """Return the label map; `values` maps block 1 or 2 to the value it gets, missing: no block."""
    values = values or {1: 1, 2: 2}
    label = np.zeros(shape, np.min_scalar_type(max(values.values())))
    for block, value in values.items():
        (x0, x1), (y0, y1), (z0, z1), _ = BLOCKS[block]
        label[x0:x1, y0:y1, z0:z1] = value
    return label


def block_image(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Return the image of both blocks, with a trace of noise."""
    image = np.random.default_rng(seed).normal(0.0, 1.0, shape).astype(np.float32)
    for (x0, x1), (y0, y1), (z0, z1), intensity in BLOCKS.values():
        image[x0:x1, y0:y1, z0:z1] += intensity
    return image


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def write_scan(
    folder: Path, number: int, label: np.ndarray | None = None, image: np.ndarray | None = None
) -> Path:
    """Write image_<number> and, where given, label_<number>; return the image's path."""
    if label is not None:
        write_nifti(folder / f"label_{number}.nii.gz", label)
    image = block_image(seed=number) if image is None else image
    return write_nifti(folder / f"image_{number}.nii.gz", image)
