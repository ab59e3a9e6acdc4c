import errno
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fsmis_components.encoding import EncodedSlices
from fsmis_components.inferers.encoded_slices import SliceStore


class Levels(NamedTuple):
    low: Tensor
    high: Tensor
    image_size: tuple[int, int]


ONE = 2 * (3 * 8 * 6 * 4 + 5 * 4 * 3 * 2)  # bytes of two slices


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def batches(count: int, device: torch.device | str = "cpu") -> list[EncodedSlices]:
    generator = torch.Generator().manual_seed(0)
    result = []
    for index in range(count):
        low = torch.randn(2, 3, 8, 6, generator=generator).to(device)
        low = low.to(memory_format=torch.channels_last)
        low[0, 0, 0, 0], low[0, 0, 0, 1] = float("nan"), -0.0
        high = torch.randn(2, 5, 4, 3, generator=generator).to(device, torch.bfloat16)
        result.append(EncodedSlices(2 * index, 2 * index + 2, Levels(low, high, (32, 24))))
    return result


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
    given = batches(5, device)
    store = SliceStore(memory_bytes=held * ONE)
    with torch.inference_mode():
        for each in given:
            store.add(each)
        assert len(open_files(tmp_path)) == (0 if held == 5 else 1)
        for _ in range(2):
            for each, came in zip(given, store, strict=True):
                assert (came.start, came.stop) == (each.start, each.stop)
                assert type(came.features) is Levels and came.features.image_size == (32, 24)
                for name in ("low", "high"):
                    wanted, back = getattr(each.features, name), getattr(came.features, name)
                    assert (back.dtype, back.device) == (wanted.dtype, wanted.device)
                    assert back.stride() == wanted.stride() and bits(back) == bits(wanted)
        pairs = zip(given, store, strict=True)
        kept = [came.features.low is each.features.low for each, came in pairs]
        assert kept == [index < held for index in range(5)]
    del store
    assert not open_files(tmp_path) and not list(tmp_path.iterdir())


def test_a_part_of_a_larger_tensor_does_not_hold_the_rest(tmp_path: Path) -> None:
    whole = torch.arange(100_000.0).reshape(100, 1, 20, 50)
    part = Levels(whole[:2], whole[2:4], (20, 50))
    for memory_bytes in (2**20, 0):
        store = SliceStore(memory_bytes)
        store.add(EncodedSlices(0, 2, part))
        (came,) = store
        assert torch.equal(came.features.high, whole[2:4])
        assert came.features.low.untyped_storage().nbytes() == 2 * 1000 * 4
        sizes = open_files(tmp_path)
        assert all(size < 30_000 for size in sizes) and len(sizes) == (memory_bytes == 0)


def test_a_full_disk_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device /dev/full takes nothing, as a full disk does."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full.open("r+b", buffering=0))
    store = SliceStore(memory_bytes=0)
    with pytest.raises(OSError) as raised:
        store.add(batches(1)[0])
    assert raised.value.errno == errno.ENOSPC
