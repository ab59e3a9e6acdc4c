import errno
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from block_scans import AFFINE, block_image
from fake_network import Intensities, IntensityNetwork

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView, choose_slice_grid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding import EncodedSlices, FeatureCache, ScanEncoder
from fsmis_components.encoding.feature_cache import features_kind

CPU = torch.device("cpu")


class Levels(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor
    image_size: tuple[int, int]


def batches() -> Iterator[EncodedSlices]:
    """Three slices in two batches; one level is channels-last, one of half precision."""
    random = torch.Generator().manual_seed(0)
    for start, stop in ((0, 2), (2, 3)):
        low = torch.randn(stop - start, 4, 5, 6, generator=random)
        high = torch.randn(stop - start, 8, 3, 2, generator=random).bfloat16()
        features = Levels(low.to(memory_format=torch.channels_last), high, (20, 24))
        yield EncodedSlices(start, stop, features)


def scan(image: np.ndarray | None = None) -> SliceView:
    volume = Volume(block_image() if image is None else image, AFFINE)
    return SliceView(volume, choose_slice_grid(volume, spatial_size=24))


def test_features_come_back_equal_bit_for_bit(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert "key" not in cache
    assert len(list(cache.keep("key", batches(), "scan"))) == 2
    assert "key" in cache and "other" not in cache
    found = list(cache.read("key", Levels, CPU))
    for (start, stop, features), (start_, stop_, expected) in zip(found, batches(), strict=True):
        assert (start, stop, features.image_size) == (start_, stop_, (20, 24))
        for name in ("low", "high"):
            got, wanted = getattr(features, name), getattr(expected, name)
            assert got.dtype == wanted.dtype and got.stride() == wanted.stride()
            assert torch.equal(got, wanted)


def test_what_a_killed_run_left_counts_for_nothing_and_is_completed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        next(FeatureCache(tmp_path).keep("key", batches(), "scan"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    cache = FeatureCache(tmp_path)
    assert (tmp_path / "key").is_dir() and "key" not in cache
    list(cache.keep("key", batches(), "scan"))
    assert len(list(cache.read("key", Levels, CPU))) == 2


def test_only_the_user_may_read_features(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        folder = tmp_path / "new" / "features"
        cache = FeatureCache(folder)
        reader = cache.keep("key", batches(), "scan")
        next(reader)
        assert (folder / "key").stat().st_mode & 0o777 == 0o700
        list(reader)
    finally:
        os.umask(former)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (folder / "key").iterdir()} == {0o600}


def test_a_full_disk_costs_time_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("atomic_write_bytes", "Path.mkdir"):
        cache = FeatureCache(tmp_path / name)
        with monkeypatch.context() as patched:
            patched.setattr(f"fsmis_components.encoding.feature_cache.{name}", full)
            assert len(list(cache.keep("key", batches(), name))) == 2
        assert "key" not in cache and not list((tmp_path / name).glob("*"))
        assert f"{name}: its features are not kept" in caplog.text
    assert caplog.text.count("No space left on device") == 2


def test_beyond_the_limit_nothing_is_kept_and_the_user_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = sum(low.nbytes + high.nbytes for _, _, (low, high, _) in batches())
    cache = FeatureCache(tmp_path, gigabytes=1.9 * size / 1e9)
    list(cache.keep("first", batches(), "scan 1"))
    with caplog.at_level(logging.WARNING):
        passed = list(cache.keep("second", batches(), "scan 2"))
    assert len(passed) == 2 and "first" in cache and "second" not in cache
    assert "scan 2: its features are not kept" in caplog.text
    assert "--features_gigabytes" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    with pytest.raises(DataError, match="features_gigabytes"):
        FeatureCache(tmp_path, gigabytes=0)


def test_damaged_features_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    list(cache.keep("key", batches(), "scan"))
    next((tmp_path / "key").glob("00002-*.safetensors")).write_bytes(b"half a file")
    with pytest.raises(DataError, match="remove this folder"):
        list(cache.read("key", Levels, CPU))


def test_a_scan_is_encoded_once(tmp_path: Path) -> None:
    network, rule = IntensityNetwork().eval(), Normalisation("mr")
    assert features_kind(network) is Intensities

    def encoded(view: SliceView, amp: bool = False) -> torch.Tensor:
        cache = FeatureCache(tmp_path)  # as in another run
        parts = list(ScanEncoder(network, 5, amp, cache).scan(view, rule))
        assert [part[:2] for part in parts] == [(0, 5), (5, 10), (10, 12)]
        return torch.cat([features.high for _, _, features in parts])

    with torch.no_grad():
        first = encoded(scan())
        assert network.encoded == [5, 5, 2]
        assert torch.equal(encoded(scan()), first)
        assert network.encoded == [5, 5, 2]
        encoded(scan(), amp=True)
        assert len(network.encoded) == 6
        network.gain *= 2
        assert torch.equal(encoded(scan()), 2 * first)
        assert len(network.encoded) == 9
