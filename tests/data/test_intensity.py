import re

import numpy as np
import pytest
import torch
from volume_samples import ras_affine

from fsmis_components.data.errors import DataError
from fsmis_components.data.intensity import (
    Modality,
    Normalisation,
    fit_normaliser,
    intensity_warning,
    modality_of,
    resolve_modality,
)
from fsmis_components.data.volumes import Volume


def scan(low=0.0, high=1000.0, dtype=np.float32, shape=(20, 18, 7)) -> Volume:
    values = np.random.default_rng(0).uniform(low, high, shape)
    return Volume(values.astype(dtype), ras_affine())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_mr_clips_the_top_and_standardises(dtype):
    volume = scan(0, 250, dtype)
    normalise = fit_normaliser(volume, Normalisation("mr"))
    data = np.asarray(volume.data, dtype=np.float64)
    clipped = np.minimum(data, np.quantile(data, 0.995))
    expected = (clipped - clipped.mean()) / clipped.std()
    given = torch.from_numpy(data).float()
    np.testing.assert_allclose(normalise(given).numpy(), expected, atol=2e-5)
    # slabs are independent of each other
    torch.testing.assert_close(normalise(given[:, 3:4]), normalise(given)[:, 3:4])
    np.testing.assert_array_equal(given, data.astype(np.float32))  # not changed in place


def test_ct_window():
    volume = scan(-1000, 1000)
    normalise = fit_normaliser(volume, Normalisation("ct"))
    assert (normalise.lower, normalise.upper) == (-125, 275)
    clipped = np.clip(volume.data.astype(np.float64), -125, 275)
    assert (normalise.mean, normalise.std) == pytest.approx((clipped.mean(), clipped.std()))
    out = normalise(torch.tensor([-3000.0, -125.0, 275.0, 3000.0]))
    assert out[0] == out[1] and out[2] == out[3]


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, -1e6])
@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_constant_image_gives_zeros(value, modality):
    volume = Volume(np.full((31, 29, 7), value, np.float64), ras_affine())
    image = torch.full((2, 1, 4, 4), value)
    image[0] = torch.nextafter(image[0], torch.tensor(-torch.inf))  # resizing rounds
    out = fit_normaliser(volume, Normalisation(modality))(image)
    assert torch.equal(out, torch.zeros(2, 1, 4, 4))


def body(kind="ct", seed=0) -> np.ndarray:
    """Values of a scan of half air: CT of lung, fat, soft tissue and bone, or bright MR."""
    rng = np.random.default_rng(seed)
    parts = {
        "ct": [(-1000, 10, 4), (-800, 60, 1), (-100, 20, 2), (50, 20, 4), (500, 200, 1)],
        "mr": [(0, 3, 6), (300, 100, 3), (900, 200, 3)],
    }[kind]
    values = [rng.normal(middle, spread, 4000 * share) for middle, spread, share in parts]
    return np.concatenate(values).round().reshape(40, 40, 30).astype(np.float32)


def one_cold_voxel(data):
    data[0, 0, 0] = -3000
    return data


def undershoot(data):
    """What cubic resampling leaves: negative values that grow fewer with their distance from 0."""
    dark = np.random.default_rng(1).exponential(60, data.shape)
    return np.where(data <= 3, -dark, data)


def padded(data, value):
    data[:10] = value
    return data


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("ct", lambda data: data, Modality("ct")),
        ("ct", lambda data: padded(data, 0), Modality("ct")),
        ("ct", lambda data: padded(data, -3024), Modality("ct")),
        ("ct", lambda data: data.clip(-125, 275), Modality("ct")),
        ("ct", lambda data: data.clip(-160, 240), Modality("ct")),
        ("ct", lambda data: data.clip(-1000, 1000), Modality("ct")),
        ("ct", lambda data: (data + 1024).clip(0, 4095), Modality("ct", 1024.0)),
        ("ct", lambda data: data + 32768, Modality("ct", 32768.0)),
        ("ct", lambda data: (data.clip(-1000, 1000) + 1000) / 2000, Modality("mr")),
        ("ct", lambda data: (data.clip(-160, 240) + 160) / 400 * 255, Modality("mr")),
        ("mr", lambda data: data, Modality("mr")),
        ("mr", one_cold_voxel, Modality("mr")),
        ("mr", undershoot, Modality("mr")),
        ("mr", lambda data: undershoot(data) * 10, Modality("mr")),
        ("mr", lambda data: padded(data / 4, -1024), Modality("mr")),
        ("mr", lambda data: (data - data.mean()) / data.std(), Modality("mr")),
    ],
)
def test_the_histogram_tells_the_modality(kind, change, expected):
    volume = Volume(change(body(kind)), ras_affine())
    assert modality_of(volume) == expected
    assert resolve_modality(volume) == expected.name


def test_ct_with_an_offset_is_normalised_as_without():
    plain = fit_normaliser(Volume(body(), ras_affine()), Normalisation("ct"))
    shifted = fit_normaliser(Volume(body() + 1024, ras_affine()), Normalisation("ct"))
    values = torch.tensor([-1000.0, -100.0, 50.0, 900.0])
    torch.testing.assert_close(shifted(values + 1024), plain(values))


def test_ct_outside_the_window_is_named():
    with pytest.raises(DataError, match="no voxel lies within the CT window of -125 to 275, so"):
        fit_normaliser(scan(1000, 2000), Normalisation("ct"))


@pytest.mark.parametrize(
    ("seen", "modality", "word"),
    [("mr", "mr", ""), ("ct", "ct", ""), ("mr", "ct", "no Hounsfield"), ("ct", "mr", "like CT")],
)
def test_a_scan_of_another_modality_is_told(seen, modality, word):
    warning = intensity_warning(Modality(seen), Normalisation(modality))
    assert word in warning and bool(warning) == bool(word)


@pytest.mark.parametrize(
    ("values", "value", "voxels"),
    [
        (-9999, "-9999", 1),  # a single one spoils mean and deviation
        (-9999, "-9999", 400),
        (-32768, "-32768", 12000),
        (-1e6, "-1e+06", 20),
        (65535, "65535", 400),
    ],
)
def test_a_fill_value_is_named_and_not_averaged(values, value, voxels):
    data = body("mr")
    data.reshape(-1)[:voxels] = values
    with pytest.raises(DataError, match=f"holds {re.escape(value)} in {voxels} of its voxels, far"):
        fit_normaliser(Volume(data, ras_affine()), Normalisation("mr"))


@pytest.mark.parametrize(
    "data",
    [
        body("mr"),
        undershoot(body("mr")),
        padded(body("mr"), 0),
        body("mr") > 100,
        np.where(body("mr") > 100, 5.0, -5.0),
        np.where(np.arange(48000).reshape(40, 40, 30) == 7, 1e6, body("mr")),  # clipped
    ],
)
def test_what_is_no_fill_value(data):
    fit_normaliser(Volume(np.asarray(data, np.float32), ras_affine()), Normalisation("mr"))
