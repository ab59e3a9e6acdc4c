"""In which slices of a support scan the truth about a structure is known."""

from __future__ import annotations

import numpy as np

_LEAST = 3  # one or two slices side by side may as well be all that somebody cared to label


def known_slices(labelled: np.ndarray) -> np.ndarray:
    """Slices whose label can be held against a mask.

    Labelled slices without a gap are the whole structure, so that its absence elsewhere is known
    too. With gaps nothing is known of the slices between, nor beyond the ends.

    Args:
        labelled: bool (D,), slices with a label of the structure.

    Returns:
        bool (D,).
    """
    places = np.flatnonzero(labelled)
    whole = len(places) >= _LEAST and places[-1] - places[0] == len(places) - 1
    return np.ones_like(labelled) if whole else labelled.copy()
