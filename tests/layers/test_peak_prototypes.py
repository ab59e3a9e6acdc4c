"""Peak prototypes by hand, and acceptance check 3 of the method."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.layers.peak_prototypes import channel_maxima, means_of_highest

# one pair, two channels, six cells of which the last does not belong
FEATURES = torch.tensor([[[1.0, 5, 2, 0, 4, 90], [3.0, 0, 4, 2, 1, 90]]]).reshape(1, 2, 2, 3)
CELLS = torch.tensor([[True, True, True, True, True, False]]).reshape(1, 2, 3)
BOTH = pytest.mark.parametrize("pool", [channel_maxima, means_of_highest])


def test_values_beside_a_loop() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 7, 16, 12).relu()
    cells = torch.rand(4, 16, 12) < torch.tensor([0.02, 0.3, 0.7, 1.0])[:, None, None]
    maxima, means = channel_maxima(features, cells), means_of_highest(features, cells)
    for i in range(4):
        own = features[i, :, cells[i]]  # (C, cells)
        k = min(max(round(0.05 * own.shape[1]), 4), own.shape[1])
        torch.testing.assert_close(maxima[i], own.amax(1))
        torch.testing.assert_close(means[i], own.sort(1, descending=True)[0][:, :k].mean(1))


@BOTH
def test_without_a_cell_it_is_the_mean_of_the_map(pool) -> None:
    features = torch.cat([FEATURES, FEATURES]).requires_grad_()
    cells = torch.cat([torch.zeros_like(CELLS), CELLS])
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way, even if masked later
        peaks = pool(features, cells)
        peaks.sum().backward()
    torch.testing.assert_close(peaks[0], torch.tensor([102 / 6, 100 / 6]))
    torch.testing.assert_close(features.grad[0], torch.full((2, 2, 3), 1 / 6))
    assert bool(features.grad[1].isfinite().all())
    assert not bool(features.grad[1, :, 1, 2].any())  # the cell outside


@BOTH
def test_of_a_constant_map_it_is_the_mean_with_one_unit_of_gradient(pool) -> None:
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    peaks = pool(features, torch.ones(1, 4, 4, dtype=torch.bool))
    assert not bool(peaks.any())
    peaks.sum().backward()
    torch.testing.assert_close(features.grad.sum((2, 3)), torch.ones(1, 3))
