"""Pictures of what a fit changed: its mask of a scan and the one before, where they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import writing
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.fitting.gate import mask_dice
from fsmis_components.reporting.drawing import save_overlay
from fsmis_components.support.support_pack import SupportPack


def draw_changes(
    folder: Path,
    cases: Sequence[Case],
    before: Path,
    after: Path,
    pack: SupportPack,
    most: int = 6,
) -> list[str]:
    """Draw the scans whose masks changed most, those before white and dashed.

    Args:
        folder: receives a PNG per scan; those of a former fit are taken away.
        cases: scans; those without both masks are left out.
        before: folder of `<scan>_seg.nii.gz`.
        after: folder of the same names.
        pack: names, values and colours of the structures.
        most: so many scans.

    Returns:
        The stems of the scans, the most changed one first.

    Raises:
        DataError: the folder cannot be written.
    """
    alike: dict[str, float] = {}
    for case in cases:
        if all((each / f"{case.stem}_seg.nii.gz").is_file() for each in (before, after)):
            masks = _masks(case, load_image(case.image), before, after)
            pairs = [[mask == each.value for mask in masks] for each in pack.structures]
            # a structure that neither shows is the same in both
            dice = [mask_dice(*pair) for pair in pairs if any(mask.any() for mask in pair)]
            alike[case.stem] = float(np.mean(dice)) if dice else 1.0
    chosen = [stem for stem in sorted(alike, key=lambda stem: alike[stem]) if alike[stem] < 1]
    chosen = chosen[:most]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases:
            path = folder / f"{case.stem}.png"
            if case.stem not in chosen:
                path.unlink(missing_ok=True)
                continue
            image = load_image(case.image)
            was, now = _masks(case, image, before, after)  # again: all would fill the memory
            title = f"{case.stem}: before (dashed) and after the fit, Dice {alike[case.stem]:.2f}"
            rule = pack.normalisation
            save_overlay(path, image, now, pack.structures, pack.grid, title, rule, truth=was)
    return chosen


def _masks(case: Case, image: Volume, *folders: Path) -> list[np.ndarray]:
    """Label values of a scan in each of the folders."""
    paths = [folder / f"{case.stem}_seg.nii.gz" for folder in folders]
    return [np.asarray(load_label(path, image).data) for path in paths]
