from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from block_scans import AFFINE, block_image, block_label, write_scan
from fake_network import IntensityNetwork
from scipy.ndimage import gaussian_filter, map_coordinates

from fsmis_components.data.geometry import SliceView, choose_slice_grid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers import VolumeInferer
from fsmis_components.inferers.registration import Registration, register, warp_shapes
from fsmis_components.support import SupportPack, build_support_pack, load_support_set
from fsmis_components.support.self_similarity import self_similarity

CELL = 2
SIZE = (12, 64, 64)  # slices, rows, columns; 32 x 32 cells


def texture() -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=SIZE)
    return 100 * gaussian_filter(noise, (1, 4, 4)) / gaussian_filter(noise, (1, 4, 4)).std()


def bend() -> np.ndarray:
    """Rows and columns by which the query reads the support, in pixels: up to 8, smooth."""
    _, rows, columns = np.meshgrid(
        *(np.linspace(0, np.pi, length) for length in SIZE), indexing="ij"
    )
    bump = np.sin(rows) * np.sin(columns)
    return np.stack([np.zeros(SIZE), 8 * bump, -6 * bump])


def looks(image: np.ndarray) -> torch.Tensor:
    volume = Volume(image.transpose(2, 1, 0).astype(np.float32), np.diag([1.0, 1, 3, 1]))
    grid = choose_slice_grid(volume, spatial_size=SIZE[1], slice_axis=2)
    return self_similarity(SliceView(volume, grid), Normalisation(modality="mr"), CELL)


def in_slices(maps: np.ndarray) -> np.ndarray:
    """Rows and columns as `SliceView` reads a volume that was stored (X, Y, Z)."""
    return maps.swapaxes(-1, -2)


def registered(query: np.ndarray, support: np.ndarray) -> Registration:
    left, right = looks(query), looks(support)
    everywhere = torch.ones(left[:, 0].shape)
    return register(left, right, everywhere, everywhere, 1, 2)


def test_a_smooth_bend_is_recovered() -> None:
    image, known = texture(), bend()
    bent = map_coordinates(image, np.indices(SIZE) + known, order=1, mode="nearest")
    found = registered(bent, image).field
    wanted = torch.from_numpy(in_slices(known)[[0, 2, 1]].copy()) / CELL
    wanted = F.avg_pool3d(wanted[None], (1, CELL, CELL))[0]
    inner = (..., slice(4, -4), slice(4, -4))
    error = (found - wanted).square().sum(0).sqrt()[inner].mean()
    assert wanted.square().sum(0).sqrt()[inner].mean() > 2.0  # cells
    assert error < 0.5


def test_how_alike_both_are_is_told_place_by_place() -> None:
    image, other = texture(), texture()[::-1]
    half = SIZE[1] // 2  # of the rows show something else
    alike = registered(np.concatenate([image[:, :half], other[:, half:]], 1), image).alike
    rows = slice(14), slice(18, 32)
    same, changed = (in_slices(alike.numpy())[:, part].mean() for part in rows)
    assert alike.shape == (SIZE[0], SIZE[1] // CELL, SIZE[2] // CELL)
    assert changed < 0.7 < 0.9 < same <= 1.0


@pytest.fixture
def pack(tmp_path: Path) -> SupportPack:
    write_scan(tmp_path, 1, block_label({1: 3, 2: 300}))
    return build_support_pack(IntensityNetwork(), load_support_set(tmp_path), spatial_size=24)


def test_volumes_are_registered(pack: SupportPack, tmp_path: Path) -> None:
    query, network = Volume(block_image(seed=5), AFFINE), IntensityNetwork()
    kept = SupportPack.load(pack.save(tmp_path / "pack.safetensors"))
    first, again = (VolumeInferer(kept).segment_volume(query, network) for _ in range(2))
    np.testing.assert_array_equal(first.label, again.label)
    np.testing.assert_array_equal(first.label, block_label({1: 3, 2: 300}))
    moved = VolumeInferer(kept, steps={"registration": False}).segment_volume(query, network)
    assert first.trust is not None and moved.trust is not None
    assert first.trust.expected_dice != moved.trust.expected_dice  # other shapes were expected


def test_scans_of_packs_of_version_0_1_are_moved(pack: SupportPack) -> None:
    query, network = Volume(block_image(seed=5), AFFINE), IntensityNetwork()
    former = replace(pack, profiles=(replace(pack.profiles[0], self_similarity=None),))
    found = VolumeInferer(former).segment_volume(query, network)
    moved = VolumeInferer(pack, steps={"registration": False}).segment_volume(query, network)
    np.testing.assert_array_equal(found.label, moved.label)
    assert found.trust == moved.trust


def test_a_stack_thinner_than_the_distance_of_places_is_searched_in_plane() -> None:
    shown = torch.randint(0, 256, (5, 12, 1, 9), dtype=torch.uint8)
    everywhere = torch.ones(5, 1, 9)
    found = register(shown, shown, everywhere, everywhere, through=19, reach=2).field
    assert found.shape == (3, 5, 1, 9)
    assert found.abs().max() < 0.1


def test_what_is_labelled_is_found_far_away_in_other_surroundings() -> None:
    generator = torch.Generator().manual_seed(0)
    query, support = (
        F.avg_pool2d(torch.randint(0, 256, (5, 12, 50, 50), generator=generator).float(), 3, 1)
        for _ in range(2)
    )
    labelled, wanted = torch.zeros(2, 5, 48, 48)
    labelled[:, 4:20, 4:20] = 1.0
    wanted[:, 24:40, 22:38] = 1.0
    query[:, :, 24:40, 22:38] = support[:, :, 4:20, 4:20]
    found = register(query, support, torch.ones(5, 48, 48), labelled, through=1, reach=1)
    bent = warp_shapes(labelled[:, None], found.field)[:, 0]
    assert 2 * (bent * wanted).sum() / (bent.sum() + wanted.sum()) > 0.8
    unlike = register(query, query.flip(1), torch.ones(5, 48, 48), labelled, through=1, reach=1)
    assert unlike.likeness < found.likeness <= 1
