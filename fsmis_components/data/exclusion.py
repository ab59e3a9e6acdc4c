"""Setting 2: which slices of a scan show structures that a training must not see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume, load_label

RULES = ("any", "all")


def shown_structures(
    case: Case, volume: Volume, grid: SliceGrid, values: Sequence[int]
) -> np.ndarray:
    """Whether each slice of a scan shows each of the label values.

    Args:
        case: names the scan's label.
        volume: the scan.
        grid: says along which axis slices are cut.
        values: N label values.

    Returns:
        bool (N, D), in the order of `SliceView`.

    Raises:
        DataError: the scan has no label, or it cannot be read.
    """
    if case.label is None:
        raise DataError(
            f"{case.image}: setting 2 leaves out slices by their labels and this scan has none; "
            "add its label or use --setting 1."
        )
    slices = SliceView(load_label(case.label, volume), grid).native_labels()
    return np.stack([(slices == value).any((1, 2)) for value in values])


def excluded(shown: np.ndarray, rule: str) -> np.ndarray:
    """Whether each slice is left out of a training, bool (D,).

    Args:
        shown: bool (N, D), from `shown_structures`.
        rule: leave out a slice that shows "any" (SSL-ALPNet) or only "all" of the structures.

    Raises:
        DataError: another word.
    """
    if rule not in RULES:
        raise DataError(f"exclude_rule: expected any or all, got {rule!r}.")
    return np.all(shown, axis=0) if rule == "all" else np.any(shown, axis=0)
