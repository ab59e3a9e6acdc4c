"""Folders of made-up scans for a server, each stored in another way, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np

from phantom import STRUCTURES, draw_subject, write_subject

# of the labels that are submitted: neither 1 to N nor in the order of the default pack
VALUES = {1: 2, 2: 4, 3: 5, 4: 7}
NAMES = {VALUES[value]: name for value, name in STRUCTURES.items()}
# axis orders in which scanners and viewers store scans; the last two put the slices elsewhere.
# All axes are tilted, and slices are 10 mm thick with pixels of 3.4 mm
ORDERS = ("RAS", "LPS", "LAS", "RPI", "PIR", "SAL")
SHAPE = (96, 80, 12)


@dataclass(frozen=True)
class Study:
    """A scan in the folder of a server and its label, which the server does not see."""

    id: str
    image: Path
    label: Path

    @property
    def stored_label(self) -> Path:
        """Return where a server keeps the label once it was submitted."""
        return self.image.parent / "labels" / "final" / self.image.name

    @property
    def affine(self) -> np.ndarray:
        return nibabel.load(self.image).affine

    @property
    def truth(self) -> np.ndarray:
        return np.asarray(nibabel.load(self.label).dataobj)


def write_studies(folder: Path) -> list[Study]:
    """Write ``studies/scan_<n>.nii.gz`` and, apart, ``truth/scan_<n>.nii.gz``, one per order."""
    table = np.zeros(max(VALUES) + 1, np.uint8)
    for value, stored in VALUES.items():
        table[value] = stored
    studies = []
    for number, order in enumerate(ORDERS, start=1):
        x, y, z = SHAPE
        # no two scans have the same grid
        subject = draw_subject(1, number, (x - 2 * number, y + number, z + number % 3))
        subject = replace(subject, label=table[subject.label])
        name = f"scan_{number}"
        study = Study(name, *(folder / part / f"{name}.nii.gz" for part in ("studies", "truth")))
        write_subject(subject, study.image, study.label, order)
        studies.append(study)
    return studies
