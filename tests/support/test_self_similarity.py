from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fsmis_components.data.geometry import SliceView, choose_slice_grid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding.slice_descriptors import coarse_descriptors
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.self_similarity import EDGES, patch_mean, tissue_shares

SIDE = 64


def body(first: int, stop: int, offset: float = 0.0, seed: int = 1) -> Volume:
    """Slices of one body in air, of fat and soft tissue in which vessels and bones come and go."""
    # smooth, so that neighbouring slices are alike
    tissue = gaussian_filter(np.random.default_rng(0).normal(size=(SIDE, SIDE, 48)), (6, 6, 3))
    tissue = 120 * tissue / tissue.std()
    image = tissue + np.random.default_rng(seed).normal(scale=5, size=tissue.shape)
    image[:8] = image[-8:] = -1000
    return Volume((image + offset)[..., first:stop].astype(np.float32), np.diag([1.0, 1, 3, 1]))


def shares(volume: Volume, modality: str = "ct") -> torch.Tensor | None:
    grid = choose_slice_grid(volume, spatial_size=SIDE, slice_axis=2)
    return tissue_shares(SliceView(volume, grid), Normalisation(modality), cell=2)


def coarse(volume: Volume) -> torch.Tensor:
    found = shares(volume)
    assert found is not None
    return coarse_descriptors(found, found.shape[-2:])


@pytest.mark.parametrize("offset", [0.0, 1024.0])  # some scanners store CT so
def test_they_find_slices_that_say_nothing_to_the_network(offset: float) -> None:
    query, support = (
        torch.randn(depth, 16, generator=torch.Generator().manual_seed(depth)) for depth in (32, 48)
    )
    by_network = align(query, support)
    beside = coarse(body(8, 40, offset, seed=2)), coarse(body(0, 48))
    by_both = align(query, support, beside=beside)
    places = np.arange(32) + 8.0
    assert np.abs(by_network.positions - places).max() > 3  # else nothing is shown here
    assert np.abs(by_both.positions - places).max() <= 1
    # how alike two scans are is the network's word
    assert by_both.similarity <= by_network.similarity < 0.5


def test_of_each_value_the_share_that_is_denser() -> None:
    volume = body(0, 20)
    found = shares(volume)
    assert found is not None and found.shape == (20, len(EDGES), SIDE // 2, SIDE // 2)
    wanted = [(volume.data > edge).mean() for edge in EDGES]
    np.testing.assert_allclose(found.float().mean((0, 2, 3)), wanted, atol=1e-3)
    assert shares(volume, "mr") is None  # has no unit


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (70, 4, 40, 40), (1, 1, 1, 2)])
def test_means_over_neighbours_are_the_differentiable_ones(shape: tuple[int, ...]) -> None:
    """To the last bit: registration decides on them."""
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patch_mean(maps), patch_mean(maps.clone().requires_grad_()).detach())


def test_border_repeats() -> None:
    maps = torch.zeros(1, 1, 1, 3)
    maps[..., 0] = 3.0
    torch.testing.assert_close(patch_mean(maps).flatten(), torch.tensor([2.0, 1.0, 0.0]))
