"""The sum of loss terms: weights, boundary losses by name, and what it refuses."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import ndimage
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


@pytest.mark.parametrize("names", [["query_loss"], [*WEIGHTS, "b"]], ids=str)
def test_rejects_other_terms(pred: dict[str, Tensor], label: Tensor, names: list[str]) -> None:
    said = r"got terms \['alignment_loss', 'query_loss'\] and weights of " + re.escape(
        str(sorted(names))
    )
    with pytest.raises(ValueError, match=said):
        EpisodeLoss(dict.fromkeys(names, 1.0))(pred, label)


def test_stops_at_a_total_that_is_not_finite(pred: dict[str, Tensor], label: Tensor) -> None:
    pred["alignment_loss"] = torch.tensor([math.nan, 1.0])
    with pytest.raises(ValueError, match="got query_loss 2, alignment_loss nan$"):
        EpisodeLoss(WEIGHTS)(pred, label)
    pred["logits"] = pred["logits"] * math.nan
    message = "got query_loss 2, alignment_loss nan, boundary_loss nan$"
    with pytest.raises(ValueError, match=message):
        EpisodeLoss(WEIGHTS, 0.5)(pred, label)


def by_definition(margins: np.ndarray, label: np.ndarray) -> float:
    """Return the boundary loss of one structure as the paper writes it."""

    def rim(values: np.ndarray) -> np.ndarray:
        return ndimage.maximum_filter(1 - values, 3, mode="nearest") - (1 - values)

    def wide(values: np.ndarray) -> np.ndarray:
        return ndimage.maximum_filter(values, 5, mode="nearest")

    foreground = 1 / (1 + np.exp(-margins))
    losses = []
    for p, g in ((1 - foreground, 1 - label), (foreground, label)):
        precision = (rim(p) * wide(rim(g))).sum() / (rim(p).sum() + 1e-7)
        recall = (wide(rim(p)) * rim(g)).sum() / (rim(g).sum() + 1e-7)
        losses.append(1 - 2 * precision * recall / (precision + recall + 1e-7))
    return float(np.mean(losses))


def test_boundary_loss_follows_its_definition() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(2, 3, 9, 7)) * 2
    label = (rng.random((2, 3, 9, 7)) > 0.6).astype(float)
    expected = [
        np.mean([by_definition(margins[b, n], label[b, n]) for n in range(3)]) for b in range(2)
    ]
    loss = boundary_f1_loss(torch.tensor(margins), torch.tensor(label))
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=0, atol=1e-9)
    in_single = boundary_f1_loss(torch.tensor(margins).float(), torch.tensor(label))
    assert in_single.dtype == torch.float32
    torch.testing.assert_close(in_single.double(), torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("margin", [-60.0, 0.0, 60.0])
def test_boundary_loss_is_finite_without_a_boundary(truth: float, margin: float) -> None:
    margins = torch.full((2, 1, 8, 8), margin, requires_grad=True)
    loss = boundary_f1_loss(margins, torch.full((2, 1, 8, 8), truth))
    assert loss.tolist() == [1.0, 1.0]
    loss.sum().backward()
    assert bool(margins.grad.isfinite().all())
