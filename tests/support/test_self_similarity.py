"""Means over neighbours are the same to the last bit by both ways: registration decides on them."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.support.self_similarity import patch_mean


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (70, 4, 40, 40), (1, 1, 1, 2)])
def test_equals_the_differentiable_mean(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patch_mean(maps), patch_mean(maps.clone().requires_grad_()).detach())


def test_border_repeats() -> None:
    maps = torch.zeros(1, 1, 1, 3)
    maps[..., 0] = 3.0
    torch.testing.assert_close(patch_mean(maps).flatten(), torch.tensor([2.0, 1.0, 0.0]))
