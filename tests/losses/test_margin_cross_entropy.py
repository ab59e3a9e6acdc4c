"""Cross-entropy of margins, by hand and beside PyTorch's of two channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from fsmis_components.losses import margin_cross_entropy


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
