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


def save_nifti(path: Path, data: np.ndarray, affine=None) -> Path:
    """Write a file in the type of the data; by default on the grid of `ras_affine`."""
    affine = ras_affine() if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(data, affine, dtype=data.dtype), path)
    return path
