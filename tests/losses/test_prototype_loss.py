"""The prototype loss by hand: agreement between sides, difference between classes."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.losses import prototype_loss

X, Y = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.parametrize(
    ("background", "foreground", "expected"),
    [
        ((X, X), (Y, Y), 0.0),  # sides agree, classes are orthogonal
        ((X, X), (X, X), 2.0),  # classes alike on both sides
        ((X, X), (Y, X), 2.0),  # foreground differs between the sides, and is background on one
        ((X, [-1.0, 0.0]), (Y, Y), 2.0),  # background turned round
    ],
)
def test_by_hand(background: tuple, foreground: tuple, expected: float) -> None:
    tokens = torch.tensor([[[background, foreground]]])  # (1, 1, 2, 2, 2)
    assert prototype_loss(tokens).tolist() == pytest.approx([expected])
    # twice as long, the same direction; averaged over pairs
    both = torch.cat([tokens, 2 * tokens], 1)
    assert prototype_loss(both).tolist() == pytest.approx([expected])
