"""CoW's boundary loss: acceptance check 4 of its specification, and its definition in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsmis_components.losses import boundary_f1_loss


def by_definition(margins: np.ndarray, label: np.ndarray) -> float:
    """Return the loss of one structure, pixel by pixel as the paper writes it."""

    def pooled(values: np.ndarray, k: int) -> np.ndarray:
        r = k // 2
        return np.array(
            [
                [
                    values[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].max()
                    for x in range(values.shape[1])
                ]
                for y in range(values.shape[0])
            ]
        )

    foreground = 1 / (1 + np.exp(-margins))
    losses = []
    for p, g in ((1 - foreground, 1 - label), (foreground, label)):
        bp, bg = pooled(1 - p, 3) - (1 - p), pooled(1 - g, 3) - (1 - g)
        precision = (bp * pooled(bg, 5)).sum() / (bp.sum() + 1e-7)
        recall = (pooled(bp, 5) * bg).sum() / (bg.sum() + 1e-7)
        losses.append(1 - 2 * precision * recall / (precision + recall + 1e-7))
    return float(np.mean(losses))


def test_follows_its_definition() -> None:
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
def test_is_finite_without_a_boundary(truth: float, margin: float) -> None:
    margins = torch.full((2, 1, 8, 8), margin, requires_grad=True)
    loss = boundary_f1_loss(margins, torch.full((2, 1, 8, 8), truth))
    assert loss.tolist() == [1.0, 1.0]
    loss.sum().backward()
    assert bool(margins.grad.isfinite().all())
