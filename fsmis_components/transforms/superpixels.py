"""Cuts each slice into 2D regions of similar intensity, the pseudo-labels of SSL-ALPNet."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import segmentation

from fsmis_components.transforms.supervoxels import renumber


def superpixel_labels(
    volume: np.ndarray,
    mask: np.ndarray,
    *,
    min_size: int = 400,
    sigma: float = 1.0,
    scale: float = 1.0,
) -> np.ndarray:
    """Felzenszwalb superpixels of every slice, inside the mask.

    Intensities are first brought to 0..255, so that `scale` means what it means in SSL-ALPNet; it
    is 1/255 of a grey level there, and the result is set by `min_size`. The paper cuts regions at
    the mask afterwards, which leaves slivers below the minimum size; here the outside of the mask
    is set apart before, so that regions end at the mask.

    Args:
        volume: (D, H, W) intensities of any scale.
        mask: (D, H, W) bool.
        min_size: pixels; every region has at least as many, unless its part of the mask is smaller.
        sigma: Gaussian smoothing before, in pixels.
        scale: larger values prefer larger regions.

    Returns:
        int32 (D, H, W): 0 outside the mask, regions 1, 2, ... of each slice without gaps. The same
        number in two slices means nothing.

    Raises:
        ValueError: shapes differ or min_size < 1.
    """
    if volume.ndim != 3 or mask.shape != volume.shape or mask.dtype != bool:
        message = (
            "superpixel_labels: expected a volume (D, H, W) and a boolean mask of the same shape, "
            f"got {volume.shape} and {mask.dtype} {mask.shape}"
        )
        raise ValueError(message)
    if min_size < 1:
        message = f"superpixel_labels: expected min_size >= 1, got {min_size}"
        raise ValueError(message)
    low, high = float(volume.min()), float(volume.max())
    grey = (volume.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    smooth = ndimage.gaussian_filter(grey, (0.0, sigma, sigma))
    labels = np.zeros(volume.shape, dtype=np.int32)
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        plane = np.where(mask[index], smooth[index], -1000.0)  # farther than any two grey levels
        # sigma 0: smoothing after this would blur the edge of the mask
        regions = segmentation.felzenszwalb(plane, scale=scale, sigma=0, min_size=min_size)
        labels[index] = renumber(np.where(mask[index], regions + 1, 0))
    return labels
