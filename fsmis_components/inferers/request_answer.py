"""What a person who asked for a mask is told of it, and what they drew themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import fsmis_components
from fsmis_components.inferers.segmentation import Segmentation
from fsmis_components.support.support_request import ResolvedSupport, SupportRequest, relabel

_LEAST = 3  # one or two slices side by side may as well be all that somebody cared to label


def answer_facts(support: ResolvedSupport, result: Segmentation) -> dict[str, Any]:
    """Which support answered, what the mask's values mean, how far to trust it; JSON values."""
    pack = support.pack
    facts: dict[str, Any] = {
        "support": {"source": support.source, "scans": [profile.name for profile in pack.profiles]},
        "structures": {structure.name: structure.value for structure in pack.structures},
        "warnings": [*support.notes, *result.warnings],
        "fsmis_components": fsmis_components.__version__,
    }
    if pack.calibration is not None:
        facts["support"]["self_test"] = pack.calibration.describe(pack.structures)
    if expected := result.expected_dice:
        facts["expected_dice"] = {name: round(value, 3) for name, value in expected.items()}
    return facts


def drawn_label(
    request: SupportRequest, support: ResolvedSupport, image: str | Path
) -> np.ndarray | None:
    """The label (X, Y, Z) of the scan itself, where a request names the scan among its support.

    It has the values of the answer's structures; None where the scan supports others only.
    """
    path = Path(image).resolve()
    for volume in request.volumes:
        if Path(volume.image).resolve() == path and volume.label in support.values:
            scan = relabel(volume.load(), support.values[volume.label])
            return np.asarray(scan.label.data)
    return None


def keep_drawn(label: np.ndarray, drawn: np.ndarray, axis: int) -> np.ndarray:
    """A new label (X, Y, Z) with what was drawn over what was segmented.

    A structure is what was drawn and no more in the slices (along the stored axis `axis`) in which
    it is known: those in which it is drawn, and all of them where they follow each other without a
    gap (`known_slices`).
    """
    kept = label.copy()
    slices, drawn_slices = np.moveaxis(kept, axis, 0), np.moveaxis(drawn, axis, 0)  # views
    for value in np.unique(drawn[drawn > 0]):
        known = known_slices((drawn_slices == value).any((1, 2)))
        slices[known[:, None, None] & (slices == value)] = 0
    kept[drawn > 0] = drawn[drawn > 0]
    return kept


def known_slices(labelled: np.ndarray) -> np.ndarray:
    """Slices (D,) whose label can be held against a mask, of those with a label of a structure.

    Labelled slices without a gap are the whole structure, so that its absence elsewhere is known
    too. With gaps nothing is known of the slices between, nor beyond the ends.
    """
    places = np.flatnonzero(labelled)
    whole = len(places) >= _LEAST and places[-1] - places[0] == len(places) - 1
    return np.ones_like(labelled) if whole else labelled.copy()
