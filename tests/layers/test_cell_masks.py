"""Masks on cells, by hand: shares, padding, which cells stand for a class, mean prototypes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.layers.cell_masks import (
    cell_shares,
    cells_inside,
    chosen_cells,
    class_means,
)


def test_shares_by_hand() -> None:
    """Cells of 2 x 2 pixels; what is missing at the right and below counts as outside."""
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 1, 1]])[None, None]
    expected = torch.tensor([[[[0.75, 0, 0.5], [0, 0.25, 0.25]]]])
    for masks in (mask, mask.bool(), mask.double()):
        torch.testing.assert_close(cell_shares(masks, (2, 3), 2), expected)
    # a whole row and column of cells may be padding
    wider = cell_shares(mask, (3, 4), 2)
    torch.testing.assert_close(wider[..., :2, :3], expected)
    assert wider.sum() == expected.sum()


@pytest.mark.parametrize("side", [33, 65])
def test_shares_of_odd_sizes_keep_the_area(side: int) -> None:
    torch.manual_seed(0)
    mask = torch.rand(2, 3, side, side + 2)
    shares = cell_shares(mask, (17, 18), 4)
    torch.testing.assert_close(16 * shares.sum((2, 3)), mask.sum((2, 3)))


def test_cells_with_a_pixel_of_the_image_are_inside() -> None:
    found = cells_inside((3, 5), (4, 4), 2, torch.device("cpu"))
    expected = torch.zeros(1, 4, 4, dtype=torch.bool)
    expected[0, :2, :3] = True  # rows 0-1 and 2, columns 0-1, 2-3 and 4
    assert torch.equal(found, expected)
    assert bool(cells_inside((257, 264), (66, 66), 4, torch.device("cpu"))[0, 64].all())
    assert not cells_inside((257, 264), (66, 66), 4, torch.device("cpu"))[0, 65].any()


def test_chosen_cells() -> None:
    more_than_half = torch.tensor([[0.6, 0.5], [0.0, 1.0]])
    touched = torch.tensor([[0.5, 0.0], [0.01, 0.0]])
    nothing = torch.zeros(2, 2)
    found = chosen_cells(torch.stack([more_than_half, touched, nothing])[None])
    expected = [[[True, False], [False, True]], [[True, False], [True, False]], [[False] * 2] * 2]
    assert found.tolist() == [expected]


def means_by_hand(features: Tensor, weights: Tensor) -> Tensor:
    return (features * weights).sum((1, 2)) / weights.sum()


def test_class_means_leave_padding_out() -> None:
    features = torch.tensor([[[1.0, 2.0, 100.0], [3.0, 4.0, 100.0]]]).expand(1, 5, 2, 3)
    foreground = torch.tensor([[[[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]]]])
    inside = torch.tensor([[[[1.0, 1.0, 0.0], [0.5, 1.0, 0.0]]]])
    found = class_means(features, foreground, inside)
    # foreground (0.5 * 1 + 4) / 1.5; background (0.5 * 1 + 2 + 0.5 * 3) / 2
    expected = torch.tensor([2.0, 3.0])[:, None].expand(1, 1, 2, 5)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)  # 1e-5 is added to the area


def test_class_means_of_several_slices_and_structures() -> None:
    torch.manual_seed(0)
    features, foreground = torch.randn(2, 5, 33, 65), torch.rand(2, 3, 33, 65)
    found = class_means(features, foreground, torch.ones(1, 1, 33, 65))
    assert found.shape == (2, 3, 2, 5)
    for b in range(2):
        for n in range(3):
            front, back = foreground[b, n], 1 - foreground[b, n]
            torch.testing.assert_close(found[b, n, 1], means_by_hand(features[b], front))
            torch.testing.assert_close(found[b, n, 0], means_by_hand(features[b], back))


def test_empty_and_full_masks_give_zeros() -> None:
    features = torch.ones(1, 5, 3, 3, requires_grad=True)
    whole = torch.ones(1, 1, 3, 3)
    masks = torch.stack([torch.zeros(3, 3), torch.ones(3, 3)])[None]
    found = class_means(features, masks, whole)
    torch.testing.assert_close(found[0, :, :, 0], torch.eye(2))
    found.sum().backward()
    # each cell is once background and once foreground, among nine
    torch.testing.assert_close(features.grad, torch.full((1, 5, 3, 3), 2 / 9))


def test_scripts() -> None:
    torch.manual_seed(0)
    mask = (torch.rand(1, 2, 33, 65) > 0.5).float()
    shares = cell_shares(mask, (17, 33), 2)
    assert torch.equal(torch.jit.script(cell_shares)(mask, (17, 33), 2), shares)
    assert torch.equal(torch.jit.script(chosen_cells)(shares), chosen_cells(shares))
    arguments = ((33, 65), (17, 33), 2, torch.device("cpu"))
    assert torch.equal(torch.jit.script(cells_inside)(*arguments), cells_inside(*arguments))
