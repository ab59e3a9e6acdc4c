"""Dice of two masks, from voxel counts."""

from __future__ import annotations

import numpy as np


def dice(predicted: np.ndarray, labelled: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) in percent, over all voxels.

    Args:
        predicted: bool, any shape.
        labelled: bool, the same shape.

    Returns:
        Percent; NaN where neither mask holds a voxel.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != labelled.shape:
        raise ValueError(
            f"dice: expected masks of one shape, got {predicted.shape} and {labelled.shape}"
        )
    total = np.count_nonzero(predicted) + np.count_nonzero(labelled)
    both = np.count_nonzero(predicted & labelled)
    return 200.0 * both / total if total else float("nan")
