"""Finds the part of each slice that shows the patient and not the air around."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MR_FRACTION = 0.06  # background noise of MR stays below this share of the brightest tissue
CT_FRACTION = 0.005  # windowed CT: air is the lower end of the window, fat lies just above it


def body_threshold(volume: np.ndarray, fraction: float = MR_FRACTION) -> float:
    """Intensity above which a voxel of a volume of any shape and scale counts as patient.

    SSL-ALPNet compares raw MR intensities with 50 and windowed CT with just above the window's
    lower end. Normalised data have neither number, so the threshold is a fraction of the way from
    the darkest voxel to the 99th percentile. The rule does not split the histogram in two (Otsu
    would): a crop without background keeps all but its darkest voxels.
    """
    darkest = float(volume.min())
    return darkest + fraction * (float(np.quantile(volume, 0.99)) - darkest)


def body_mask(volume: np.ndarray, fraction: float = MR_FRACTION) -> np.ndarray:
    """Mask of the patient: brighter than the threshold, largest component per slice, no holes.

    Of a volume (D, H, W), a boolean mask of its shape. A slice with nothing above the threshold is
    empty; a constant volume is patient everywhere, since nothing tells its background.
    """
    if volume.min() == volume.max():
        return np.ones(volume.shape, dtype=bool)
    above = volume > body_threshold(volume, fraction)
    return np.stack([_largest_filled(plane) for plane in above])


def _largest_filled(plane: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(plane)
    if count > 1:
        plane = components == np.bincount(components[plane]).argmax()
    return ndimage.binary_fill_holes(plane)
