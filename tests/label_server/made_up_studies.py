"""Folders of made-up scans for a server, each stored in another way, and what is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np

from phantom import draw_subject, write_subject

# axis orders in which scanners and viewers store scans; the last two put the slices elsewhere.
# All axes are tilted, and slices are thicker than pixels
ORDERS = ("RAS", "LPS", "LAS", "RPI", "PIR", "SAL")
SHAPE = (64, 56, 8)


@dataclass(frozen=True)
class Study:
    """A scan in the folder of a server and its label, which the server does not see."""

    id: str
    image: Path
    label: Path

    @property
    def affine(self) -> np.ndarray:
        return nibabel.load(self.image).affine

    @property
    def truth(self) -> np.ndarray:
        return np.asarray(nibabel.load(self.label).dataobj)

    def relabelled(self, values: Mapping[int, int], path: Path) -> Path:
        """Write the label with other values into a file; what is not named is left out."""
        label, data = nibabel.load(self.label), self.truth
        changed = np.zeros_like(data)
        for value, other in values.items():
            changed[data == value] = other
        nibabel.save(nibabel.Nifti1Image(changed, label.affine, label.header), path)
        return path


def write_studies(folder: Path, values: Mapping[int, int], count: int) -> list[Study]:
    """Write ``studies/scan_<n>.nii.gz`` and, apart, ``truth/scan_<n>.nii.gz``.

    ``values`` says which structures of the phantom labels hold, and as what.
    """
    table = np.zeros(5, np.uint8)
    for value, stored in values.items():
        table[value] = stored
    studies = []
    for number in range(1, count + 1):
        x, y, z = SHAPE
        # no two scans have the same grid
        subject = draw_subject(1, number, (x - 2 * number, y + number, z + number % 3))
        subject = replace(subject, label=table[subject.label])
        name = f"scan_{number}"
        study = Study(name, *(folder / part / f"{name}.nii.gz" for part in ("studies", "truth")))
        order = ORDERS[(number - 1) % len(ORDERS)]
        write_subject(subject, study.image, study.label, order)
        studies.append(study)
    return studies
