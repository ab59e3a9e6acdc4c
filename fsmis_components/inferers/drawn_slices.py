"""What a person drew in a scan that is segmented by its own label stays as it was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsmis_components.inferers.trust.known_slices import known_slices
from fsmis_components.support.requested import Answer, relabelled
from fsmis_components.support.support_request import SupportRequest


def drawn_label(request: SupportRequest, answer: Answer, image: str | Path) -> np.ndarray | None:
    """The label of the scan itself, where a request names the scan among its support.

    Args:
        request: the support that was asked for.
        answer: the support that was found.
        image: path of the scan.

    Returns:
        (X, Y, Z) with the values of the answer's structures; None where the scan supports others
        only.

    Raises:
        DataError: the label was changed meanwhile.
    """
    path = Path(image).resolve()
    for volume in request.volumes:
        if Path(volume.image).resolve() == path and volume.label in answer.values:
            scan = relabelled(volume.load(), answer.values[volume.label])
            return np.asarray(scan.label.data)
    return None


def keep_drawn(label: np.ndarray, drawn: np.ndarray, axis: int) -> np.ndarray:
    """Put what was drawn over what was segmented.

    A structure is what was drawn and no more in the slices in which it is known: those in which it
    is drawn, and all of them where they follow each other without a gap (`known_slices`).

    Args:
        label: (X, Y, Z) label values.
        drawn: the same with what a person drew.
        axis: stored axis along which slices follow each other.

    Returns:
        A new array (X, Y, Z).
    """
    kept = label.copy()
    slices, own = np.moveaxis(kept, axis, 0), np.moveaxis(drawn, axis, 0)  # views
    for value in np.unique(own[own > 0]):
        known = known_slices((own == value).any((1, 2)))
        slices[known[:, None, None] & (slices == value)] = 0
    kept[drawn > 0] = drawn[drawn > 0]
    return kept
