import numpy as np
import pytest
from scipy import ndimage

from fsmis_components.transforms.regions import renumber, superpixel_labels, supervoxel_labels


def _two_blocks(noise: float = 0.0) -> np.ndarray:
    volume = np.zeros((4, 12, 20), dtype=np.float32)
    volume[:, :, 10:] = 5
    return volume + np.random.default_rng(0).normal(0, noise or 1e-9, volume.shape).astype("f4")


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_values_touching_blocks_become_two_regions(noise: float) -> None:
    volume = _two_blocks(noise)
    labels = supervoxel_labels(volume, np.ones(volume.shape, bool), min_size=100, sigma=0)
    # noise may cut a block again, but no region may cross the border of the blocks
    if not noise:
        assert labels.max() == 2
    assert not set(np.unique(labels[:, :, :10])) & set(np.unique(labels[:, :, 10:]))


def test_matches_merging_along_all_edges() -> None:
    """The spanning tree loses nothing against the plain algorithm over every edge."""
    rng = np.random.default_rng(3)
    volume = rng.normal(size=(3, 9, 11))
    mask = rng.uniform(size=volume.shape) < 0.8
    expected = _plain_merge(volume, mask, min_size=12)
    assert np.array_equal(supervoxel_labels(volume, mask, min_size=12, sigma=0), expected)


def _plain_merge(volume: np.ndarray, mask: np.ndarray, min_size: int) -> np.ndarray:
    smooth = volume.astype(np.float32)
    edges = []
    for voxel in np.argwhere(mask):
        for axis in range(3):
            other = voxel.copy()
            other[axis] += 1
            if other[axis] < volume.shape[axis] and mask[tuple(other)]:
                a, b = float(smooth[tuple(voxel)]), float(smooth[tuple(other)])
                edges.append((abs(a - b), tuple(voxel), tuple(other)))
    labels = np.zeros(volume.shape, dtype=np.int64)
    labels[mask] = np.arange(1, mask.sum() + 1)
    for _, a, b in sorted(edges):
        first, second = labels[a], labels[b]
        if first != second and min((labels == first).sum(), (labels == second).sum()) < min_size:
            labels[labels == second] = first
    return renumber(labels)


def test_min_size_unless_the_component_is_smaller() -> None:
    rng = np.random.default_rng(4)
    volume = rng.normal(size=(5, 30, 30))
    mask = np.zeros(volume.shape, dtype=bool)
    mask[:, 2:28, 2:20] = True
    mask[0, 2:6, 24:28] = True  # 16 voxels, apart
    labels = supervoxel_labels(volume, mask, min_size=60)
    assert np.array_equal(labels > 0, mask)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.min() == 16 and np.sort(sizes)[1] >= 60
    assert sizes.size > 5  # and it is not one region
    for number in range(1, labels.max() + 1):  # unique: a number is one connected piece
        assert ndimage.label(labels == number)[1] == 1


def test_superpixels_end_at_the_mask_and_reach_min_size() -> None:
    volume = np.random.default_rng(0).normal(size=(2, 40, 40))
    mask = np.zeros(volume.shape, dtype=bool)
    mask[0, 5:35, 5:35] = True  # slice 1: nobody there
    mask[0, 5:8, 5:8] = False
    labels = superpixel_labels(volume, mask, min_size=15)
    assert np.array_equal(labels > 0, mask)
    sizes = np.bincount(labels[0].ravel())[1:]
    assert sizes.min() >= 15 and sizes.size >= 4
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels[0] == number, np.ones((3, 3)))[1] == 1
