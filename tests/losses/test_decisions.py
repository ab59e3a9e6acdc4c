"""Losses of decisions, by hand and beside PyTorch's cross-entropy of two channels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fsmis_components.losses import margin_cross_entropy, self_prediction_loss, soft_dice_loss


def test_margin_cross_entropy_equals_two_channel_cross_entropy() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 2, 9, 7) * 5  # (B, N, [bg, fg], H, W)
    label = torch.randint(0, 2, (2, 3, 9, 7))
    label[0, 0, 0, :3] = 255
    weight = torch.tensor([0.05, 1.0])
    expected = torch.stack(
        [
            torch.stack(
                [
                    F.cross_entropy(scores[b, n][None], label[b, n][None], weight, ignore_index=255)
                    for n in range(3)
                ]
            ).mean()
            for b in range(2)
        ]
    )
    margins = scores[:, :, 1] - scores[:, :, 0]
    torch.testing.assert_close(margin_cross_entropy(margins, label, 0.05), expected)


def test_dice_by_hand() -> None:
    # probabilities 1/2, 3/4 | 1/4, 1/2
    margins = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]]).reshape(1, 2, 1, 2)
    label = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 1, 2)
    first = 1 - (2 * 0.75 + 1) / (1.25 + 1 + 1)
    second = 1 - (2 * 0.75 + 1) / (0.75 + 2 + 1)
    loss = soft_dice_loss(margins, label)
    torch.testing.assert_close(loss, torch.tensor([(first + second) / 2]))


def test_dice_ignores_unknown_pixels() -> None:
    torch.manual_seed(0)
    margins = torch.randn(1, 1, 4, 6, requires_grad=True)
    label = (torch.rand(1, 1, 4, 6) > 0.5).long()
    label[..., 4:] = 255
    loss = soft_dice_loss(margins, label)
    torch.testing.assert_close(loss, soft_dice_loss(margins[..., :4], label[..., :4]))
    loss.sum().backward()
    assert not bool(margins.grad[..., 4:].any()) and bool(margins.grad[..., :4].all())
    assert soft_dice_loss(margins, torch.full_like(label, 255)).tolist() == [0.0]


def test_self_prediction_by_hand() -> None:
    probability = torch.tensor([[0.5, 0.25], [0.9, 0.8]]).reshape(1, 2, 1, 2)
    label = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    expected = [
        [(math.log(2) + math.log(4 / 3)) / 2, (math.log(10) + math.log(5 / 4)) / 2],
    ]
    torch.testing.assert_close(self_prediction_loss(probability, label), torch.tensor(expected))


def test_self_prediction_ignores_unknown_pixels() -> None:
    probability = torch.tensor([0.25, 0.1, 0.9]).reshape(1, 1, 1, 3).requires_grad_()
    label = torch.tensor([1, 255, 255]).reshape(1, 1, 1, 3)
    loss = self_prediction_loss(probability, label)
    assert loss.item() == pytest.approx(math.log(4))
    loss.sum().backward()
    assert probability.grad.flatten().tolist() == [-4.0, 0.0, 0.0]
    assert self_prediction_loss(probability, torch.full_like(label, 255)).item() == 0


def test_self_prediction_clamps_what_is_no_probability() -> None:
    """Without a sigmoid the map leaves [0, 1]: the loss is finite there and the gradient zero."""
    probability = torch.tensor([-3.0, 1.0, 0.0, 7.0]).reshape(4, 1, 1, 1).requires_grad_()
    label = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    loss = self_prediction_loss(probability, label)
    worst = 23 * math.log(2)  # eps is 2**-23
    assert loss.flatten().tolist() == pytest.approx([worst, worst, 0, 0], abs=1e-6)
    loss.sum().backward()
    assert probability.grad.flatten()[[0, 3]].tolist() == [0, 0]
