"""HPG: means at the image's size, weak pixels, draws that can be checked, small masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from fsmis_components.layers.prototype_miner import (
    HardPrototypes,
    PrototypeMiner,
    edge_masks,
    fill,
)


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
        "channels": 4,
        "num_prototypes": (12, 20),
        "num_hard": (4, 6),
        "grid": 32,
        "predictor_width": 8,
        "self_prediction": True,
        "hpg": True,
        "guided_init": False,
    } | changes
    return PrototypeMiner(**settings).eval()


def weak_pixels(net: PrototypeMiner, given: tuple[Tensor, ...]) -> list[Tensor]:
    """Weak foreground and background on the grid, where everything is predicted so."""
    seen: list[Tensor] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, given: seen.append(given[2]))
        for part in (net.foreground, net.background)
    ]
    net(*given)
    for hook in hooks:
        hook.remove()
    return [weak.reshape(1, 1, net.grid, net.grid) for weak in seen]


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
    given, net = slice_of(), miner()
    for score in (-3.0, 3.0):
        net.predictor = FixedPrediction(torch.full((1, 1, 8, 8), score))
        front, back = weak_pixels(net, given)
        assert torch.equal(front, (given[1] > 0) & (score < 0))
        assert torch.equal(back, (given[1] == 0) & (score > 0))


@pytest.mark.parametrize("self_prediction", [True, False])
def test_sizes_of_the_paper(self_prediction: bool) -> None:
    """Acceptance check 1 and A1: 102 and 602 prototypes, also without weak pixels."""
    sizes = {"channels": 3, "num_prototypes": (100, 600), "num_hard": (50, 100), "grid": 256}
    net = miner(**sizes, self_prediction=self_prediction)
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
    assert 1 <= int(weak_pixels(net, (features, mask, inside, seeds))[0].sum()) <= 4
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


def one_mask(*positions: int, length: int = 16) -> Tensor:
    mask = torch.zeros(1, 1, length, dtype=torch.bool)
    mask[..., list(positions)] = True
    return mask


SEED = torch.tensor([[7]])


def test_filling_copies_the_mask_wholly_before_it_repeats() -> None:
    source = fill(one_mask(0, 1, 2, 3, 4), SEED)[0, 0, 5:]  # 11 places for 5 vectors
    counts = torch.bincount(source, minlength=5)
    assert sorted(counts.tolist()) == [2, 2, 2, 2, 3]
    enough = fill(one_mask(*range(9)), SEED)[0, 0, 9:]
    assert len(set(enough.tolist())) == 7  # 7 places for 9 vectors: none is used twice


def layer(**changes: object) -> HardPrototypes:
    torch.manual_seed(0)
    settings = {"num_positions": 16, "num_prototypes": 6, "num_hard": 2} | changes
    return HardPrototypes(**settings).eval()


FEATURES = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(1))


def test_hard_prototypes_are_features_of_weak_pixels() -> None:
    mask, weak = one_mask(*range(8)), one_mask(2, 5)
    found = layer()(FEATURES, mask, weak, SEED)[0, 0]
    assert found.shape == (6, 4)
    assert {tuple(row) for row in found[4:].tolist()} == {
        tuple(row) for row in FEATURES[0, [2, 5]].tolist()
    }
    normal = layer()(FEATURES, mask, one_mask(), SEED)[0, 0]
    kept = {tuple(row) for row in normal.tolist()}
    assert all(tuple(row) in kept for row in found[:4].tolist())  # four of the six, in any order


def test_layers_by_hand() -> None:
    """One feature everywhere: the first layer sums its weights, the second mixes the sums."""
    net = layer()
    feature = torch.tensor([1.0, -2.0, 0.5, 3.0])
    found = net(feature.expand(1, 16, 4), one_mask(3), one_mask(), SEED)[0, 0]
    hidden = net.first.weight.sum(1)[:, None] * feature + net.first.bias[:, None]
    expected = net.second.weight @ hidden + net.second.bias[:, None]
    torch.testing.assert_close(found, expected)


def test_guided_init_begins_with_means_of_cells() -> None:
    net = layer(num_prototypes=4, guided_init=True)
    values = FEATURES
    found = net(values, one_mask(*range(16)), one_mask(), SEED)[0, 0]
    square = values[0].reshape(4, 4, 4)
    expected = torch.stack(
        [square[i : i + 2, j : j + 2].mean((0, 1)) for i in (0, 2) for j in (0, 2)]
    )
    torch.testing.assert_close(found, expected)
