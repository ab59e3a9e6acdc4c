"""CoW's auxiliary loss: acceptance check 5 of its specification, and the edges of its range."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.losses import auxiliary_loss

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


def test_stays_in_its_range() -> None:
    torch.manual_seed(0)
    sets = [torch.randn(40, 5, 2, 3) for _ in range(4)]
    loss = auxiliary_loss(*sets)
    assert loss.shape == (40, 5)
    assert 0 <= loss.min().item() < 1 and 4 < loss.max().item() <= 6
    # structures do not mix
    alone = auxiliary_loss(*[each[3:4, 2:3] for each in sets])
    torch.testing.assert_close(alone, loss[3:4, 2:3])


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


def test_gradients() -> None:
    torch.manual_seed(0)
    sets = [torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(auxiliary_loss, sets)


def test_computes_in_float32() -> None:
    torch.manual_seed(0)
    sets = [torch.randn(1, 2, 600, 16).bfloat16() for _ in range(4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = auxiliary_loss(*sets)
    assert torch.equal(loss, auxiliary_loss(*[each.float() for each in sets]))


def test_scripts() -> None:
    sets = [torch.randn(1, 2, 3, 4) for _ in range(4)]
    torch.testing.assert_close(torch.jit.script(auxiliary_loss)(*sets), auxiliary_loss(*sets))
