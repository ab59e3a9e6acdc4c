"""Masks on cells, by hand: shares, padding, which cells stand for a class, mean prototypes."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.layers.cell_masks import (
    cell_shares,
    cells_inside,
    channel_maxima,
    chosen_cells,
    class_means,
    confident_cells,
    means_of_highest,
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


def test_class_means_leave_padding_out() -> None:
    features = torch.tensor([[[1.0, 2.0, 100.0], [3.0, 4.0, 100.0]]]).expand(1, 5, 2, 3)
    foreground = torch.tensor([[[[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]]]])
    inside = torch.tensor([[[[1.0, 1.0, 0.0], [0.5, 1.0, 0.0]]]])
    found = class_means(features, foreground, inside)
    # foreground (0.5 * 1 + 4) / 1.5; background (0.5 * 1 + 2 + 0.5 * 3) / 2
    expected = torch.tensor([2.0, 3.0])[:, None].expand(1, 1, 2, 5)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)  # 1e-5 is added to the area


ALL = torch.ones(1, 33, 65, dtype=torch.bool)


def test_the_most_probable_cells_where_none_is_sure() -> None:
    """Of 33 * 65 = 2,145 cells 0.2 % are five when rounded up; of few cells four."""
    torch.manual_seed(0)
    probability = 0.01 + 0.3 * torch.rand(2, 3, 33, 65)
    probability[1, 2, 20, 20] = 0.8  # sure, and enough alone: each pair falls back for itself
    front, back = confident_cells(probability, ALL)
    assert front.sum((2, 3)).tolist() == [[5, 5, 5], [5, 5, 1]]
    chosen = probability[0, 1][front[0, 1]]
    assert chosen.min() > probability[0, 1][~front[0, 1]].max()
    assert bool(back[0].all())  # all are surely background
    front, _ = confident_cells(torch.full((1, 1, 1, 2), 0.5), torch.ones(1, 1, 2).bool())
    assert front.flatten().tolist() == [True, True]


# one pair, two channels, six cells of which the last does not belong
FEATURES = torch.tensor([[[1.0, 5, 2, 0, 4, 90], [3.0, 0, 4, 2, 1, 90]]]).reshape(1, 2, 2, 3)
CELLS = torch.tensor([[True, True, True, True, True, False]]).reshape(1, 2, 3)
BOTH = pytest.mark.parametrize("pool", [channel_maxima, means_of_highest])


@BOTH
def test_without_a_cell_it_is_the_mean_of_the_map(pool) -> None:
    features = torch.cat([FEATURES, FEATURES]).requires_grad_()
    cells = torch.cat([torch.zeros_like(CELLS), CELLS])
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way, even if masked later
        peaks = pool(features, cells)
        peaks.sum().backward()
    torch.testing.assert_close(peaks[0], torch.tensor([102 / 6, 100 / 6]))
    torch.testing.assert_close(features.grad[0], torch.full((2, 2, 3), 1 / 6))
    assert bool(features.grad[1].isfinite().all())
    assert not bool(features.grad[1, :, 1, 2].any())  # the cell outside


@BOTH
def test_of_a_constant_map_it_is_the_mean_with_one_unit_of_gradient(pool) -> None:
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    peaks = pool(features, torch.ones(1, 4, 4, dtype=torch.bool))
    assert not bool(peaks.any())
    peaks.sum().backward()
    torch.testing.assert_close(features.grad.sum((2, 3)), torch.ones(1, 3))
