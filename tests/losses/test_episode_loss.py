"""The sum of loss terms: weights, boundary losses by name, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fsmis_components.losses import EpisodeLoss, boundary_f1_loss

WEIGHTS = {"query_loss": 1.0, "alignment_loss": 0.5}


@pytest.fixture
def label() -> Tensor:
    label = torch.zeros(2, 1, 8, 8)
    label[..., 2:6] = 1
    return label


@pytest.fixture
def pred() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "logits": torch.cat([torch.zeros(2, 1, 8, 8), torch.randn(2, 1, 8, 8)], 1),
        "query_loss": torch.tensor([1.0, 3.0]),
        "alignment_loss": torch.tensor([2.0, 4.0]),
    }


def test_weighs_its_terms(pred: dict[str, Tensor], label: Tensor) -> None:
    assert EpisodeLoss(WEIGHTS)(pred, label).item() == 2 + 0.5 * 3
    pred["auxiliary_loss"] = torch.tensor([6.0, 0.0])
    assert EpisodeLoss({**WEIGHTS, "auxiliary_loss": 0.25})(pred, label).item() == 4.25


def test_adds_the_boundary_loss(pred: dict[str, Tensor], label: Tensor) -> None:
    total = EpisodeLoss(WEIGHTS, 0.1)(pred, label)
    expected = 3.5 + 0.1 * boundary_f1_loss(pred["logits"][:, 1:], label).mean()
    torch.testing.assert_close(total, expected)
    assert total.item() > 3.51


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"query_loss": 1.0}, "got alignment_loss without a weight$"),
        (
            {**WEIGHTS, "self_prediction_loss": 0.3},
            "got self_prediction_loss with a weight but not reported$",
        ),
        (
            {"query_loss": 1.0, "b": 1.0, "a": 1.0},
            "got alignment_loss without a weight; a, b with a weight but not reported$",
        ),
    ],
)
def test_rejects_other_terms(
    pred: dict[str, Tensor], label: Tensor, weights: dict[str, float], said: str
) -> None:
    with pytest.raises(ValueError, match="EpisodeLoss: expected a weight for each term.*" + said):
        EpisodeLoss(weights)(pred, label)


def test_stops_at_a_total_that_is_not_finite(pred: dict[str, Tensor], label: Tensor) -> None:
    pred["alignment_loss"] = torch.tensor([math.nan, 1.0])
    with pytest.raises(ValueError, match="got query_loss 2, alignment_loss nan$"):
        EpisodeLoss(WEIGHTS)(pred, label)
    pred["logits"] = pred["logits"] * math.nan
    message = "got query_loss 2, alignment_loss nan, boundary_loss nan$"
    with pytest.raises(ValueError, match=message):
        EpisodeLoss(WEIGHTS, 0.5)(pred, label)
