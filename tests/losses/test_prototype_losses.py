"""CoW's auxiliary loss: acceptance check 5 of its specification; IPSNet's prototype loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.losses import auxiliary_loss, prototype_loss

RIGHT, LEFT, UP = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])


def prototypes(direction: Tensor, count: int = 3) -> Tensor:
    """A set (1, 1, P, C) whose mean is three times the direction, no prototype of it is."""
    spread = torch.linspace(-1, 1, count)[:, None] * torch.tensor([[0.3, 2.0]])
    return (3 * direction + spread)[None, None]


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        ((RIGHT, UP, RIGHT, UP), 0.0),  # same classes, orthogonal
        ((RIGHT, LEFT, RIGHT, LEFT), 0.0),  # more than orthogonal is not rewarded
        ((RIGHT, RIGHT, RIGHT, RIGHT), 2.0),  # the classes are one
        ((RIGHT, UP, LEFT, UP), 2.0),  # the foregrounds disagree
        ((RIGHT, UP, UP, RIGHT), 2.0),
        ((RIGHT, RIGHT, LEFT, LEFT), 6.0),
    ],
)
def test_values(directions: tuple[Tensor, ...], expected: float) -> None:
    sets = [prototypes(d, count) for d, count in zip(directions, (3, 5, 2, 7), strict=True)]
    torch.testing.assert_close(auxiliary_loss(*sets), torch.tensor([[expected]]))


def test_a_mean_of_zero_has_no_direction() -> None:
    support = torch.zeros(1, 2, 3, 4, requires_grad=True)
    others = [torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3)]
    loss = auxiliary_loss(support, *others)
    loss.sum().backward()
    b1, d2, b2 = (each.mean(2) / each.mean(2).norm(dim=-1, keepdim=True) for each in others)
    expected = 2 - (b1 * b2).sum(-1) + (d2 * b2).sum(-1).clamp_min(0)
    torch.testing.assert_close(loss, expected)
    assert not bool(support.grad.any())
    assert all(bool(each.grad.isfinite().all()) for each in others)


X, Y = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.parametrize(
    ("background", "foreground", "expected"),
    [
        ((X, X), (Y, X), 2.0),  # foreground differs between the sides, and is background on one
        ((X, [-1.0, 0.0]), (Y, Y), 2.0),  # background turned round
    ],
)
def test_prototype_loss_of_tokens(background: tuple, foreground: tuple, expected: float) -> None:
    tokens = torch.tensor([[[background, foreground]]])  # (1, 1, 2, 2, 2)
    assert prototype_loss(tokens).tolist() == pytest.approx([expected])
    # twice as long, the same direction; averaged over pairs
    both = torch.cat([tokens, 2 * tokens], 1)
    assert prototype_loss(both).tolist() == pytest.approx([expected])
