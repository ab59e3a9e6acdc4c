import json
from pathlib import Path

import pytest
import torch
from monai.losses import DiceCELoss

from fsmis_components.fitting import MarginalDiceCELoss

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "ssl_alpnet"


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


def taken(advantage: float) -> torch.Tensor:
    """What is learned from twenty masks, nine of which show a wide margin about what all show."""
    masks = torch.zeros(20, 16, 16)
    masks[:9, 4:12, 4:12] = 1.0
    masks[:, 6:10, 6:10] = 1.0
    label = torch.stack([1.0 - masks, masks], 1)
    logit = torch.zeros(1, 1, 16, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.1)
    loss = MarginalDiceCELoss(advantage=advantage)
    for _ in range(200):
        optimizer.zero_grad()
        loss(
            torch.cat([torch.zeros_like(logit), logit], 1).expand(20, -1, -1, -1), label
        ).backward()
        optimizer.step()
    return logit[0, 0] > 0


def test_what_fewer_than_half_of_the_masks_show_is_not_taken() -> None:
    config = json.loads((BUNDLE / "configs" / "fit.json").read_text())
    assert int(taken(1.0).sum()) == 64
    assert int(taken(config["structure_advantage"]).sum()) == 16
