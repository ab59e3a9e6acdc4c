import numpy as np

from fsmis_components.data.body_mask import CT_FRACTION, body_mask


def _phantom() -> np.ndarray:
    """Noisy air, a body of 20 x 20 with a dark hole, and an island of 3 x 3."""
    rng = np.random.default_rng(0)
    volume = rng.uniform(0, 10, (2, 32, 32))
    volume[:, 6:26, 6:26] = 500
    volume[:, 14:18, 14:18] = 0
    volume[:, 28:31, 28:31] = 500
    return volume.astype(np.float32)


def test_values_largest_component_without_holes() -> None:
    expected = np.zeros((2, 32, 32), dtype=bool)
    expected[:, 6:26, 6:26] = True
    assert np.array_equal(body_mask(_phantom()), expected)


def test_crop_without_background_is_kept() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(100, 20, (3, 40, 40))
    assert body_mask(volume).mean() > 0.98


def test_fat_of_windowed_ct_is_patient() -> None:
    volume = np.full((1, 20, 20), -125.0)
    volume[:, 4:16, 4:16] = -110  # fat
    volume[:, 8:12, 8:12] = 275
    assert body_mask(volume, fraction=CT_FRACTION).sum() == 144
    assert body_mask(volume).sum() == 16
