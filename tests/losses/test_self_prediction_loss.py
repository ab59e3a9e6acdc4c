"""CoW's self-prediction loss on maps small enough to compute by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fsmis_components.losses import self_prediction_loss


def test_values() -> None:
    probability = torch.tensor([[0.5, 0.25], [0.9, 0.8]]).reshape(1, 2, 1, 2)
    label = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    expected = [
        [(math.log(2) + math.log(4 / 3)) / 2, (math.log(10) + math.log(5 / 4)) / 2],
    ]
    torch.testing.assert_close(self_prediction_loss(probability, label), torch.tensor(expected))


def test_ignores_unknown_pixels() -> None:
    probability = torch.tensor([0.25, 0.1, 0.9]).reshape(1, 1, 1, 3).requires_grad_()
    label = torch.tensor([1, 255, 255]).reshape(1, 1, 1, 3)
    loss = self_prediction_loss(probability, label)
    assert loss.item() == pytest.approx(math.log(4))
    loss.sum().backward()
    assert probability.grad.flatten().tolist() == [-4.0, 0.0, 0.0]
    assert self_prediction_loss(probability, torch.full_like(label, 255)).item() == 0


def test_clamps_what_is_no_probability() -> None:
    """Without a sigmoid the map leaves [0, 1]: the loss is finite there and the gradient zero."""
    probability = torch.tensor([-3.0, 1.0, 0.0, 7.0]).reshape(4, 1, 1, 1).requires_grad_()
    label = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    loss = self_prediction_loss(probability, label)
    worst = 23 * math.log(2)  # eps is 2**-23
    assert loss.flatten().tolist() == pytest.approx([worst, worst, 0, 0], abs=1e-6)
    loss.sum().backward()
    assert probability.grad.flatten()[[0, 3]].tolist() == [0, 0]
    assert self_prediction_loss(probability[:1], label[:1], 0.125).item() == pytest.approx(
        3 * math.log(2)
    )


def test_computes_in_float32() -> None:
    torch.manual_seed(0)
    probability = torch.rand(2, 3, 32, 32).bfloat16()
    label = (torch.rand(2, 3, 32, 32) > 0.5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = self_prediction_loss(probability, label)
    assert torch.equal(loss, self_prediction_loss(probability.float(), label))


def test_gradients() -> None:
    torch.manual_seed(0)
    probability = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 0.9 + 0.05
    label = torch.randint(0, 2, (2, 3, 4, 5))
    label[0, 1, 0] = 255
    assert torch.autograd.gradcheck(
        lambda p: self_prediction_loss(p, label), (probability.requires_grad_(),)
    )


def test_scripts() -> None:
    probability, label = torch.rand(1, 2, 3, 4), (torch.rand(1, 2, 3, 4) > 0.5).float()
    scripted = torch.jit.script(self_prediction_loss)
    torch.testing.assert_close(
        scripted(probability, label), self_prediction_loss(probability, label)
    )
