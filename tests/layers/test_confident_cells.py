"""Confident cells, by hand: thresholds, the most probable ones where none is sure, padding."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.layers.confident_cells import ConfidentCells

ALL = torch.ones(1, 33, 65, dtype=torch.bool)


def test_thresholds_are_exceeded() -> None:
    probability = torch.tensor([[[[0.9, 0.75, 0.5], [0.26, 0.25, 0.1]]]])
    front, back = ConfidentCells(0.75, 0.75)(probability, torch.ones(1, 2, 3, dtype=torch.bool))
    assert front[0, 0].tolist() == [[True, False, False], [False, False, False]]
    assert back[0, 0].tolist() == [[False, False, False], [False, False, True]]


def test_defaults_are_those_of_ssp() -> None:
    probability = torch.tensor([[[[0.71, 0.69, 0.41, 0.39]]]])
    front, back = ConfidentCells()(probability, torch.ones(1, 1, 4, dtype=torch.bool))
    assert front.flatten().tolist() == [True, False, False, False]
    assert back.flatten().tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("share", "fewest", "count"), [(0.002, 4, 5), (0.002, 7, 7), (0.01, 4, 22), (0.0, 1, 1)]
)
def test_the_most_probable_cells_where_none_is_sure(share: float, fewest: int, count: int) -> None:
    """Of 33 * 65 = 2,145 cells 0.2 % are five when rounded up, 1 % are 22."""
    torch.manual_seed(0)
    probability = 0.01 + 0.3 * torch.rand(2, 3, 33, 65)
    front, back = ConfidentCells(share=share, fewest=fewest)(probability, ALL)
    assert front.sum((2, 3)).tolist() == [[count] * 3] * 2
    chosen = probability[0, 1][front[0, 1]]
    assert chosen.min() > probability[0, 1][~front[0, 1]].max()
    assert bool(back.all())  # all are surely background


def test_each_pair_falls_back_alone() -> None:
    probability = torch.full((2, 2, 33, 65), 0.1)
    probability[..., 3, :2] = 0.6  # not sure
    probability[..., 3, 2:6] = 0.5
    probability[1, 0, 20, 20] = 0.8  # sure, and enough alone
    front, _ = ConfidentCells(fewest=4, share=0)(probability, ALL)
    assert front[1, 0].nonzero().tolist() == [[20, 20]]
    # at least four: the fourth is as probable as the fifth and the sixth
    assert front[0, 0].nonzero().tolist() == [[3, x] for x in range(6)]
    assert torch.equal(front[1, 1], front[0, 0])


def test_padding_is_never_sure() -> None:
    inside = ALL.clone()
    inside[:, 20:] = False
    inside[:, :, 30:] = False
    front, back = ConfidentCells()(torch.full((1, 2, 33, 65), 0.9), inside)
    assert torch.equal(front, inside[None].expand(1, 2, -1, -1))
    # not one is surely background, so the best are: all alike
    assert torch.equal(back, inside[None].expand(1, 2, -1, -1))


def test_fewer_cells_than_are_wanted() -> None:
    """An image of one cell, or a map smaller than the fewest."""
    inside = torch.zeros(1, 3, 3, dtype=torch.bool)
    inside[0, 0, 0] = True
    front, back = ConfidentCells()(torch.full((1, 1, 3, 3), 0.5), inside)
    assert torch.equal(front[0], inside) and torch.equal(back[0], inside)
    front, _ = ConfidentCells()(torch.full((1, 1, 1, 2), 0.5), torch.ones(1, 1, 2).bool())
    assert front.flatten().tolist() == [True, True]


def test_choice_has_no_gradient_and_takes_half_inputs() -> None:
    probability = torch.rand(1, 1, 33, 65, dtype=torch.bfloat16, requires_grad=True)
    whole = ConfidentCells()(probability.detach().float(), ALL)
    for found, expected in zip(ConfidentCells()(probability, ALL), whole, strict=True):
        assert found.dtype == torch.bool and not found.requires_grad
        assert torch.equal(found, expected)


def test_scripts() -> None:
    net = ConfidentCells()
    probability = torch.rand(2, 3, 33, 65)
    for found, expected in zip(
        torch.jit.script(net)(probability, ALL), net(probability, ALL), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("thresholds", [(1.0, 0.6), (0.7, 1.5), (-0.1, 0.6)])
def test_rejects(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"thresholds in \[0, 1\), got"):
        ConfidentCells(*thresholds)
