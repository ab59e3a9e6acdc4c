"""The rims of masks, checked against scipy's morphology."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from fsmis_components.layers.edge_masks import edge_masks


def test_equals_two_erosions_and_two_dilations() -> None:
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 4) > 0
    square = np.ones((3, 3))
    eroded = ndimage.binary_erosion(mask, square, 2, border_value=1)
    dilated = ndimage.binary_dilation(mask, square, 2)
    inner, outer = edge_masks(torch.from_numpy(mask).float()[None, None])
    assert np.array_equal(inner[0, 0].numpy(), mask & ~eroded)
    assert np.array_equal(outer[0, 0].numpy(), dilated & ~mask)


def test_one_pixel_is_all_edge() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    inner, outer = edge_masks(mask)
    assert torch.equal(inner, mask)
    assert outer.sum() == 24
    inner, outer = edge_masks(torch.zeros(1, 1, 9, 9))
    assert not inner.any() and not outer.any()
