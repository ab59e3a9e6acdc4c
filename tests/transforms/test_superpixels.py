import numpy as np
import pytest
from scipy import ndimage

from fsmis_components.transforms.superpixels import superpixel_labels


def test_values_two_halves_of_every_slice() -> None:
    volume = np.zeros((3, 16, 20), dtype=np.float32)
    volume[:, :, 12:] = 4
    labels = superpixel_labels(volume, np.ones(volume.shape, bool), min_size=20, sigma=0)
    assert labels.dtype == np.int32
    assert (labels[:, :, :12] == 1).all() and (labels[:, :, 12:] == 2).all()


def test_regions_end_at_the_mask_and_reach_min_size() -> None:
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


def test_body_smaller_than_min_size_is_one_region() -> None:
    mask = np.zeros((1, 20, 20), dtype=bool)
    mask[0, 4:8, 4:8] = True
    labels = superpixel_labels(np.random.default_rng(1).normal(size=mask.shape), mask, min_size=400)
    assert np.array_equal(labels == 1, mask) and labels.max() == 1


def test_intensity_scale_does_not_matter() -> None:
    volume = np.random.default_rng(2).normal(size=(1, 32, 32))
    mask = np.ones(volume.shape, bool)
    first = superpixel_labels(volume, mask, min_size=60)
    assert np.array_equal(first, superpixel_labels(volume * 4 + 8, mask, min_size=60))


def test_rejects() -> None:
    volume = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="boolean mask"):
        superpixel_labels(volume, np.ones((2, 3, 5), bool))
    with pytest.raises(ValueError, match="min_size >= 1"):
        superpixel_labels(volume, np.ones((2, 3, 4), bool), min_size=0)
