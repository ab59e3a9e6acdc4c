"""Records of a made-up benchmark for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from fsmis_components.evaluation.records import SCORED, CaseRecord, Row, SliceCounts

DEPTH = 8


def make_row(
    dice: float,
    *,
    method: str = "alpha",
    setting: str = "1",
    fold: int = 0,
    choice: int = 0,
    shots: int = 1,
    labelled: str = "sections",
    protocol: str = "wv",
    case: str = "c1",
    structure: str = "liver",
    value: int = 1,
    status: str = SCORED,
) -> Row:
    """A row whose figures are all its Dice."""
    return Row(
        method,
        setting,
        fold,
        choice,
        shots,
        "s",
        labelled,
        protocol,
        case,
        structure,
        value,
        status,
        *[dice] * 7,
    )


def make_counts() -> SliceCounts:
    """Counts of a structure on slices 2 to 5 of 8, with one false slice above it."""
    return SliceCounts(
        overlap=[0, 0, 5, 10, 10, 0, 0, 0],
        predicted=[0, 0, 5, 10, 20, 0, 10, 0],
        labelled=[0, 0, 15, 10, 10, 5, 0, 0],
    )


def make_record(rows: list[Row], **kwargs: object) -> CaseRecord:
    """A finished case of these rows."""
    settings = {"image": "no.nii.gz", "label": "no.nii.gz", "masks": {}, "seconds": 1.0}
    return CaseRecord(rows, [make_counts() for _ in rows], **(settings | kwargs))


def write_case(folder: Path, name: str) -> dict[str, object]:
    """Image, label and mask of a scan (X, Y, Z) in LAS order, as fields of a record.

    The structure lies on slices 2 to 5, the prediction is moved by one voxel and one slice up.
    """
    affine = np.diag([-1.5, 1.0, 8.0, 1.0])
    image = np.zeros((20, 30, DEPTH), np.float32)
    image[2:18, 2:28] = np.arange(1, DEPTH + 1)
    label = np.zeros(image.shape, np.uint8)
    label[5:11, 6:14, 2:6] = 1
    mask = np.zeros_like(label)
    mask[6:12, 6:14, 3:7] = 1
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("image", image), ("label", label), ("mask", mask)):
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{kind}_{name}.nii.gz")
    return {
        "image": str(folder / f"image_{name}.nii.gz"),
        "label": str(folder / f"label_{name}.nii.gz"),
        "masks": {"wv/sections": f"mask_{name}.nii.gz"},
    }
