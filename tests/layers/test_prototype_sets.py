"""From a labelled slice to prototype sets: means at the image's size, weak pixels, shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from fsmis_components.layers.prototype_sets import PrototypeMiner, edge_masks


class FixedPrediction(nn.Module):
    """Predicts given scores, whatever it sees."""

    def __init__(self, score: Tensor) -> None:
        super().__init__()
        self.score = score

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        return self.score


def miner(**changes: object) -> PrototypeMiner:
    torch.manual_seed(0)
    settings = {
        "num_prototypes": (12, 20),
        "num_hard": (4, 6),
        "grid": 32,
        "predictor_width": 8,
    } | changes
    return PrototypeMiner(4, **settings).eval()


def slice_of(size: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(1, 1, size, size)
    mask[..., 8:20, 10:24] = 1
    return torch.randn(1, 4, 8, 8), mask, torch.ones(1, 1, size, size), torch.tensor([[5]])


def test_means_are_those_of_upsampled_features() -> None:
    """A3: features are upsampled to the image, then averaged under the full mask."""
    features, mask, inside, seeds = slice_of()
    found = miner()(features, mask, inside, seeds)
    upsampled = F.interpolate(features, (32, 32), mode="bilinear", align_corners=True)

    def mean(weights: Tensor) -> Tensor:
        return (upsampled * weights).sum((2, 3))[0] / (weights.sum() + 1e-5)

    torch.testing.assert_close(found.foreground[0, 0, -2], mean(mask))
    torch.testing.assert_close(found.background[0, 0, -2], mean(1 - mask))
    inner, outer = torch.zeros_like(mask), torch.zeros_like(mask)
    inner[..., 8:20, 10:24] = 1
    inner[..., 10:18, 12:22] = 0
    outer[..., 6:22, 8:26] = 1
    outer[..., 8:20, 10:24] = 0
    torch.testing.assert_close(found.foreground[0, 0, -1], mean(inner))
    torch.testing.assert_close(found.background[0, 0, -1], mean(outer))


def test_all_background_makes_every_foreground_pixel_hard() -> None:
    """Acceptance check 2, and the reverse: all foreground makes the background hard."""
    features, mask, inside, seeds = slice_of()
    net = miner()
    net.predictor = FixedPrediction(torch.full((1, 1, 8, 8), -3.0))
    found = net(features, mask, inside, seeds)
    assert torch.equal(found.weak_foreground, mask > 0) and not found.weak_background.any()
    net.predictor = FixedPrediction(torch.full((1, 1, 8, 8), 3.0))
    found = net(features, mask, inside, seeds)
    assert torch.equal(found.weak_background, mask == 0) and not found.weak_foreground.any()


@pytest.mark.parametrize("self_prediction", [True, False])
def test_sizes_of_the_paper(self_prediction: bool) -> None:
    """Acceptance check 1 and A1: 102 and 602 prototypes, also without weak pixels."""
    torch.manual_seed(0)
    net = PrototypeMiner(3, self_prediction=self_prediction, predictor_width=4)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 50:90, 60:100] = 1
    found = net(torch.randn(1, 3, 64, 64), mask, torch.ones_like(mask), torch.zeros(1, 1).long())
    assert found.foreground.shape == (1, 1, 102, 3)
    assert found.background.shape == (1, 1, 602, 3)
    assert found.predicted.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("size", [32, 24, 80])
def test_one_pixel_survives_any_size(size: int) -> None:
    """A8 and A9: sets are mined on the grid whatever the image's size; a pixel stays a pixel."""
    features, mask, inside, seeds = slice_of(size)
    mask.zero_()
    mask[..., size // 2, size // 3] = 1
    net = miner()
    net.predictor = FixedPrediction(torch.full((1, 1, 8, 8), -3.0))
    found = net(features, mask, inside, seeds)
    assert 1 <= int(found.weak_foreground.sum()) <= 4
    for tensor in (found.foreground, found.background):
        assert tensor.isfinite().all() and bool(tensor.any(-1).all())


def test_padding_belongs_to_nothing() -> None:
    """Features of padded places reach neither set."""
    features, mask, inside, seeds = slice_of()
    inside[..., 24:] = 0
    features[..., 7:] = 1000.0  # its share in pixels below 24 is nothing
    net = miner(self_prediction=False)
    found = net(features, mask, inside, seeds)
    assert found.background.abs().max() < 100 and found.foreground.abs().max() < 100


def test_edges_are_two_erosions_and_two_dilations() -> None:
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 4) > 0
    square = np.ones((3, 3))
    eroded = ndimage.binary_erosion(mask, square, 2, border_value=1)
    dilated = ndimage.binary_dilation(mask, square, 2)
    inner, outer = edge_masks(torch.from_numpy(mask).float()[None, None])
    assert np.array_equal(inner[0, 0].numpy(), mask & ~eroded)
    assert np.array_equal(outer[0, 0].numpy(), dilated & ~mask)
