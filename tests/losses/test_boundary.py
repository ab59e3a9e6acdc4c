"""The Laplacian boundary loss: it falls as edges meet."""

from __future__ import annotations

import torch

from fsmis_components.losses import boundary_loss


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
