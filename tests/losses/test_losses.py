"""Losses of an episode on examples small enough to compute by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fsmis_components.losses import EpisodeLoss, boundary_loss, margin_cross_entropy


def test_margin_cross_entropy_by_hand() -> None:
    margins = torch.tensor([0.0, math.log(3.0)]).reshape(1, 1, 1, 2)
    label = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    # background pixel: p = 1/2; foreground pixel: p = 3/4
    expected = (0.05 * math.log(2.0) + 1.0 * math.log(4 / 3)) / 1.05
    loss = margin_cross_entropy(margins, label, background_weight=0.05)
    torch.testing.assert_close(loss, torch.tensor([expected]))


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


def test_boundary_loss_falls_as_edges_meet() -> None:
    label = torch.zeros(1, 1, 16, 16)
    label[..., 4:12, 4:12] = 1
    perfect = boundary_loss((label - 0.5) * 60, label)
    shifted = boundary_loss((label.roll(2, -1) - 0.5) * 60, label)
    nothing = boundary_loss(torch.full_like(label, -30.0), label)
    assert perfect.shape == (1,)
    torch.testing.assert_close(perfect, torch.zeros(1), atol=1e-4, rtol=0)
    assert 0.2 < shifted.item() < nothing.item() <= 1.0


def test_boundary_loss_has_a_gradient() -> None:
    torch.manual_seed(0)
    margins = torch.randn(2, 3, 6, 5, requires_grad=True)
    boundary_loss(margins, (torch.rand(2, 3, 6, 5) > 0.5).float()).sum().backward()
    assert margins.grad is not None and bool(margins.grad.abs().sum() > 0)


def test_episode_loss_weighs_its_terms() -> None:
    label = torch.zeros(2, 1, 8, 8)
    label[..., 2:6] = 1
    terms = {
        "logits": torch.full((2, 2, 8, 8), -30.0),  # nothing predicted: the boundary loss is 1
        "query_loss": torch.tensor([1.0, 3.0]),
        "alignment_loss": torch.tensor([2.0, 4.0]),
    }
    assert EpisodeLoss()(terms, label).item() == pytest.approx(5)
    assert EpisodeLoss(0.5, 0.1)(terms, label).item() == pytest.approx(2 + 1.5 + 0.1)


def test_episode_loss_stops_at_a_loss_that_is_not_finite() -> None:
    terms = {"query_loss": torch.tensor([math.nan]), "alignment_loss": torch.ones(1)}
    with pytest.raises(ValueError, match="query_loss nan"):
        EpisodeLoss()(terms, torch.zeros(1, 1, 8, 8))
