from __future__ import annotations

import errno
import gc
import os
import tempfile
import weakref
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fsmis_components.inferers.slab_store import SlabStore
from fsmis_components.inferers.slabs import Slab


class Levels(NamedTuple):
    low: Tensor
    high: Tensor
    image_size: tuple[int, int]


ONE = 2 * (3 * 8 * 6 * 4 + 5 * 4 * 3 * 2)  # bytes of a slab of two slices


def some_slabs(count: int, device: torch.device | str = "cpu") -> list[Slab]:
    generator = torch.Generator().manual_seed(0)
    slabs = []
    for index in range(count):
        low = torch.randn(2, 3, 8, 6, generator=generator).to(device)
        low = low.to(memory_format=torch.channels_last)
        low[0, 0, 0, 0], low[0, 0, 0, 1] = float("nan"), -0.0
        high = torch.randn(2, 5, 4, 3, generator=generator).to(device, torch.bfloat16)
        slabs.append(Slab(2 * index, 2 * index + 2, Levels(low, high, (32, 24))))
    return slabs


def bits(tensor: Tensor) -> list[int]:
    kind = {4: torch.int32, 2: torch.int16}[tensor.element_size()]
    return tensor.contiguous().view(kind).flatten().tolist()


def open_files(folder: Path) -> list[int]:
    """Sizes of the files of a folder that this process has open, also those without a name."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link.stat().st_size for link in links if os.readlink(link).startswith(f"{folder}/")]


@pytest.mark.parametrize("held", [0, 2, 5])
def test_what_comes_back_is_equal_bit_for_bit(
    held: int, tmp_path: Path, device: torch.device
) -> None:
    slabs = some_slabs(5, device)
    with SlabStore(memory_bytes=held * ONE, folder=tmp_path) as store, torch.inference_mode():
        for slab in slabs:
            store.add(slab)
        assert len(store) == 5
        assert len(open_files(tmp_path)) == (0 if held == 5 else 1)
        for _ in range(2):
            for slab, came in zip(slabs, store, strict=True):
                assert (came.start, came.stop) == (slab.start, slab.stop)
                assert type(came.features) is Levels and came.features.image_size == (32, 24)
                for name in ("low", "high"):
                    own, back = getattr(slab.features, name), getattr(came.features, name)
                    assert (back.dtype, back.device) == (own.dtype, own.device)
                    assert back.stride() == own.stride() and bits(back) == bits(own)
        pairs = zip(slabs, store, strict=True)
        kept = [came.features.low is slab.features.low for slab, came in pairs]
        assert kept == [index < held for index in range(5)]


def test_two_readers_at_once(tmp_path: Path) -> None:
    with SlabStore(memory_bytes=0, folder=tmp_path) as store:
        for slab in some_slabs(3):
            store.add(slab)
        pairs = [(one.start, other.start) for one in store for other in store]
    assert pairs == [(a, b) for a in (0, 2, 4) for b in (0, 2, 4)]


def test_the_limit_is_kept_and_what_is_on_disk_leaves_memory(tmp_path: Path) -> None:
    with SlabStore(memory_bytes=2 * ONE, folder=tmp_path) as store:
        alive = []
        for slab in some_slabs(4):
            alive.append(weakref.ref(slab.features.low))
            store.add(slab)
        del slab
        gc.collect()
        assert [reference() is not None for reference in alive] == [True, True, False, False]


def test_a_part_of_a_larger_tensor_does_not_hold_the_rest(tmp_path: Path) -> None:
    whole = torch.arange(100_000.0).reshape(100, 1, 20, 50)
    part = Levels(whole[:2], whole[2:4], (20, 50))
    for memory_bytes in (2**20, 0):
        with SlabStore(memory_bytes, tmp_path) as store:
            store.add(Slab(0, 2, part))
            (came,) = store
            assert torch.equal(came.features.high, whole[2:4])
            assert came.features.low.untyped_storage().nbytes() == 2 * 1000 * 4
            sizes = open_files(tmp_path)
            assert all(size < 30_000 for size in sizes) and len(sizes) == (memory_bytes == 0)


def test_nothing_is_left_also_after_an_exception(tmp_path: Path) -> None:
    store = SlabStore(memory_bytes=ONE, folder=tmp_path)
    with pytest.raises(RuntimeError, match="elsewhere"), store:
        for slab in some_slabs(3):
            store.add(slab)
        assert open_files(tmp_path)
        raise RuntimeError("elsewhere")
    assert not open_files(tmp_path) and not list(tmp_path.iterdir())
    assert len(store) == 0


def test_outside_its_block_it_refuses(tmp_path: Path) -> None:
    store = SlabStore(folder=tmp_path)
    (slab,) = some_slabs(1)
    with pytest.raises(ValueError, match="inside its with block"):
        store.add(slab)
    with store:
        store.add(slab)
    with pytest.raises(ValueError, match="inside its with block"):
        list(store)


def test_a_full_disk_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device /dev/full takes nothing, as a full disk does."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full.open("r+b", buffering=0))
    with pytest.raises(OSError) as raised, SlabStore(memory_bytes=0) as store:
        store.add(some_slabs(1)[0])
    assert raised.value.errno == errno.ENOSPC


def test_the_default_folder_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with SlabStore(memory_bytes=0) as store:
        store.add(some_slabs(1)[0])
        assert len(open_files(tmp_path)) == 1
