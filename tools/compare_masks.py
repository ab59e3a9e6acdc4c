"""Score written masks against labels, beside a floor that knows nothing of few-shot learning.

The *mask copy* lays the support's label on the query and never reads the image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np

from fsmis_components.commands.command_line import command
from fsmis_components.data.cases import find_cases
from fsmis_components.evaluation.metrics import dice_percent

METHODS = ("program", "label copied")


def copy_mask(support_label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the support's label (X, Y, Z) on a grid of ``shape``: the same relative positions."""
    index = [
        ((np.arange(size) + 0.5) * old / size).astype(int)
        for size, old in zip(shape, support_label.shape, strict=True)
    ]
    return support_label[np.ix_(*index)]


def score(
    support_label: np.ndarray, label: np.ndarray, mask: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Return the Dice of the mask and of the mask copy per label value.

    Args:
        support_label: (X, Y, Z) in right-anterior-superior order.
        label: the same of the query.
        mask: what the method wrote for the query, alike.
    """
    copied = copy_mask(support_label, label.shape)
    return {
        value: tuple(dice_percent(found == value, label == value) for found in (mask, copied))
        for value in np.unique(support_label[support_label > 0]).tolist()
    }


def print_table(tables: list[dict[int, tuple[float, float]]]) -> None:
    """Print the mean over scans per structure and over all."""
    print(f"\nDice in percent, {len(tables)} scan{'s' if len(tables) > 1 else ''}, whole volume")
    print(f"{'label':>8}" + "".join(f"{name:>14}" for name in METHODS))
    for value in tables[0]:
        row = np.mean([table[value] for table in tables], axis=0)
        print(f"{value:>8}" + "".join(f"{number:>14.1f}" for number in row))
    means = np.mean([list(table.values()) for table in tables], axis=(0, 1))
    print(f"{'mean':>8}" + "".join(f"{number:>14.1f}" for number in means))
    if means[0] <= means[1]:
        print("The masks are no better than the floor: look at the overlays before you use them.")


def read(path: Path) -> np.ndarray:
    """Return a NIfTI volume (X, Y, Z) in right-anterior-superior order."""
    scan = nibabel.as_closest_canonical(nibabel.load(path))
    return np.squeeze(np.asanyarray(scan.dataobj))


def main(support_dir: Path, label_dir: Path, mask_dir: Path) -> None:
    """Print the places of the masks, and their Dice beside a floor where there are labels.

    Args:
        support_dir: the labelled scans that were given.
        label_dir: scans with labels, if there are any.
        mask_dir: the masks that were written.
    """
    masks = sorted(mask_dir.glob("*_seg.nii.gz"))
    tables = []
    support = None
    for case in find_cases(label_dir):
        mask = mask_dir / f"{case.stem}_seg.nii.gz"
        if case.label is None or mask not in masks:
            continue
        if support is None:
            first = find_cases(support_dir, labels="required")[0]
            support = read(first.label)
        tables.append(score(support, read(case.label), read(mask)))
    if tables:
        print_table(tables)
    print("\nMasks and pictures:")
    for path in [*masks, *sorted(mask_dir.glob("overlays/*.png"))]:
        print(f"  {path}")


if __name__ == "__main__":
    sys.exit(command(main))
