"""Soft Dice of margins on maps small enough to compute by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fsmis_components.losses import soft_dice_loss


def test_values() -> None:
    # probabilities 1/2, 3/4 | 1/4, 1/2
    margins = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]]).reshape(1, 2, 1, 2)
    label = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 1, 2)
    first = 1 - (2 * 0.75 + 1) / (1.25 + 1 + 1)
    second = 1 - (2 * 0.75 + 1) / (0.75 + 2 + 1)
    loss = soft_dice_loss(margins, label)
    torch.testing.assert_close(loss, torch.tensor([(first + second) / 2]))
    plain = soft_dice_loss(margins[:, :1], label[:, :1], smoothing=0.0)
    torch.testing.assert_close(plain, torch.tensor([1 - 1.5 / 2.25]))


def test_of_a_certain_prediction_is_one_minus_dice() -> None:
    torch.manual_seed(0)
    predicted, label = torch.rand(2, 3, 9, 7) > 0.4, torch.rand(2, 3, 9, 7) > 0.6
    overlap = (predicted & label).sum((2, 3))
    dice = 2 * overlap / (predicted.sum((2, 3)) + label.sum((2, 3)))
    loss = soft_dice_loss((predicted.float() - 0.5) * 100, label, smoothing=0.0)
    torch.testing.assert_close(loss, (1 - dice).mean(1))


def test_empty_label() -> None:
    label = torch.zeros(1, 1, 10, 10)
    nothing = torch.full_like(label, -60.0)
    assert soft_dice_loss(nothing, label).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(-nothing, label).item() == pytest.approx(100 / 101)


def test_ignores_unknown_pixels() -> None:
    torch.manual_seed(0)
    margins = torch.randn(1, 1, 4, 6, requires_grad=True)
    label = (torch.rand(1, 1, 4, 6) > 0.5).long()
    label[..., 4:] = 255
    loss = soft_dice_loss(margins, label)
    torch.testing.assert_close(loss, soft_dice_loss(margins[..., :4], label[..., :4]))
    loss.sum().backward()
    assert not bool(margins.grad[..., 4:].any()) and bool(margins.grad[..., :4].all())
    assert soft_dice_loss(margins, torch.full_like(label, 255)).tolist() == [0.0]


def test_computes_in_float32() -> None:
    """In half precision a sum of 4096 halves would stop growing."""
    torch.manual_seed(0)
    margins = torch.randn(2, 3, 64, 64).bfloat16()
    label = (torch.rand(2, 3, 64, 64) > 0.5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_dice_loss(margins, label)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, soft_dice_loss(margins.float(), label.float()))


def test_gradients() -> None:
    torch.manual_seed(0)
    margins = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 2, (2, 3, 4, 5))
    label[0, 1, 0] = 255
    assert torch.autograd.gradcheck(lambda m: soft_dice_loss(m, label), (margins,))


def test_scripts() -> None:
    torch.manual_seed(0)
    margins, label = torch.randn(2, 3, 4, 5), (torch.rand(2, 3, 4, 5) > 0.5).float()
    scripted = torch.jit.script(soft_dice_loss)
    torch.testing.assert_close(scripted(margins, label), soft_dice_loss(margins, label))
