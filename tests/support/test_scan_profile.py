from __future__ import annotations

import math

import torch

from fsmis_components.support.scan_profile import shapes_and_extents


def ball(slices: dict[int, int], depth: int = 9, size: int = 32) -> torch.Tensor:
    """Masks (D, 1, H, W) with a centred disc of the given radius in each named slice."""
    axis = torch.arange(size) - (size - 1) / 2
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    masks = torch.zeros(depth, 1, size, size, dtype=torch.bool)
    for place, wanted in slices.items():
        masks[place, 0] = radius < wanted
    return masks


def shapes_of(masks: torch.Tensor, cell: int = 1) -> torch.Tensor:
    return shapes_and_extents(masks, masks.flatten(2).any(-1), cell)[0]


def test_between_sections_the_outline_is_interpolated() -> None:
    shapes = shapes_of(ball({2: 4, 6: 12}))[0].float() / 255
    radii = (shapes.sum((1, 2)) / math.pi).sqrt()
    for place, wanted in zip(range(2, 7), (4, 6, 8, 10, 12), strict=True):
        assert abs(float(radii[place]) - wanted) < 0.6
    # it shrinks towards its ends at 0 and 8
    assert 0 < radii[1] < radii[2] and 0 < radii[7] < radii[6]


def test_cells_are_shares_and_border_cells_count_as_padded() -> None:
    masks = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    masks[0, 0, :2, :1] = True  # half of the first cell of 2 x 2
    masks[0, 0, 4, 4] = True  # a quarter of a cell that the padding completes
    shapes = shapes_of(masks, cell=2)
    assert shapes.shape == (1, 1, 3, 3)
    assert shapes[0, 0].tolist() == [[128, 0, 0], [0, 0, 0], [0, 0, 64]]
