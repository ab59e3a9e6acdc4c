"""Small volumes of known content for the tests of data/."""

import itertools
from pathlib import Path

import nibabel
import numpy as np

from fsmis_components.data.volumes import Volume

ORIENTATIONS = [
    "".join(axes)
    for choice in itertools.product("RL", "AP", "SI")
    for axes in itertools.permutations(choice)
]


def ras_affine(spacing=(1.5, 1.25, 6.0), origin=(-30.0, -20.0, 40.0), angle=0.0) -> np.ndarray:
    """Affine of a right-anterior-superior grid, turned by an angle (radians) about two axes."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def stored_as(volume: Volume, axes: str) -> Volume:
    """The same voxels at the same places, stored in another order, such as "LPS" or "SAR"."""
    order = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(volume.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    data = nibabel.apply_orientation(np.asarray(volume.data), order)
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(order, volume.data.shape)
    return Volume(data, affine)


def organ_label(shape=(48, 40, 14), value=3) -> np.ndarray:
    """An ellipsoid with a bite, off the centre: no two orientations look alike."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = ((x - 0.2) / 0.6) ** 2 + ((y + 0.1) / 0.7) ** 2 + ((z - 0.1) / 0.8) ** 2 < 1
    bite = (x - 0.7) ** 2 + (y - 0.4) ** 2 < 0.1
    return np.where(inside & ~bite, value, 0).astype(np.uint8)


def save_nifti(path: Path, data: np.ndarray, affine=None) -> Path:
    """Write a file in the type of the data; by default on the grid of `ras_affine`."""
    affine = ras_affine() if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(data, affine, dtype=data.dtype), path)
    return path
