"""Print where written masks lie, and their Dice where the scans have labels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fsmis_components.commands.command_line import command
from fsmis_components.data.cases import find_cases
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.metrics import dice_percent


def compare(label_dir: Path, mask_dir: Path) -> None:
    """Print the Dice of each scan and structure, and the places of the masks.

    Args:
        label_dir: the scans, with labels if there are any.
        mask_dir: the masks that were written.
    """
    print("\nDice in percent, whole volume")
    for case in find_cases(label_dir):
        path = mask_dir / f"{case.stem}_seg.nii.gz"
        if case.label is None or not path.is_file():
            continue
        image = load_image(case.image)
        label, mask = (np.asarray(load_label(p, image).data) for p in (case.label, path))
        for value in sorted({*np.unique(mask).tolist(), *np.unique(label).tolist()} - {0}):
            dice = dice_percent(mask == value, label == value)
            print(f"{case.name:>10}, label {value}: {dice:.1f}")
    print("\nMasks and pictures:")
    for path in [*sorted(mask_dir.glob("*_seg.nii.gz")), *sorted(mask_dir.glob("overlays/*.png"))]:
        print(f"  {path}")


if __name__ == "__main__":
    sys.exit(command(compare))
