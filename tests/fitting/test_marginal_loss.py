from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from fsmis_components.fitting import MarginalDiceCELoss


def one_hot(*channels: list[list[float]]) -> torch.Tensor:
    return torch.tensor(channels)[None]


def test_is_monais_loss_where_all_is_known() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8)
    label = torch.nn.functional.one_hot(torch.randint(0, 3, (2, 8, 8)), 3).movedim(-1, 1).float()
    expected = DiceCELoss(include_background=False, softmax=True, batch=True)(logits, label)
    torch.testing.assert_close(MarginalDiceCELoss()(logits, label), expected)


def test_a_doubtful_structure_is_neither_rewarded_nor_punished() -> None:
    label = torch.zeros(1, 3, 4, 4)
    label[:, 0], label[:, 2] = 1.0, -1.0
    said = torch.zeros(1, 3, 4, 4)
    said[:, 2] = 20.0  # the network is sure to see it
    not_said = torch.zeros(1, 3, 4, 4)
    not_said[:, 0] = 20.0
    loss = MarginalDiceCELoss(dice_weight=0.0)
    assert float(loss(said, label)) == pytest.approx(float(loss(not_said, label)), abs=1e-5)
    known = label.clamp(0)
    assert loss(said, known) > 10 > loss(not_said, known)


def test_gradients_are_finite() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    label = torch.zeros(1, 3, 4, 4)
    label[:, 0], label[:, 1] = 1.0, -1.0
    MarginalDiceCELoss()(logits, label).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.any()
