"""Which tiles the Triton kernels use, chosen by timing where that is allowed, and their launch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

# the tile chosen for a kernel on a kind of problem; filled by timing, for the process
_CHOSEN: dict[tuple[Any, ...], Tile] = {}
# milliseconds per candidate
_WARM_UP, _TIMED = 5, 20
# a sum over fewer terms is not worth a part of its own; parts start where every block can
_SHORTEST_PART = 256
_PART_STEP = 128
# programs per multiprocessor that can hide each other's waits
_PROGRAMS_PER_PROCESSOR = 2
_NOMINAL_BLOCK = 64


@dataclass(frozen=True)
class Tile:
    """Sizes of one program's work, all powers of two."""

    BLOCK_L: int  # positions
    BLOCK_P: int  # prototypes
    BLOCK_C: int  # channels of a product at once; one operand stays on the chip where it has all
    BLOCK_D: int  # columns of the result at once: of values, or of a gradient
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Parts:
    """A sum of ``parts`` pieces of ``size`` terms, the last of which may be shorter."""

    parts: int
    size: int


def split(programs: int, terms: int, device: torch.device) -> Parts:
    """Split the sum of terms so that programs, which are too few alone, fill the device."""
    processors = 1
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    slots = processors * _PROGRAMS_PER_PROCESSOR
    parts = max(1, min(slots // max(1, programs), terms // _SHORTEST_PART))
    size = -(-terms // (parts * _PART_STEP)) * _PART_STEP
    return Parts(-(-terms // size) if terms else 1, size)


def nominal_blocks(length: int) -> int:
    """Return about how many programs share an axis, before its tile is chosen."""
    return -(-length // _NOMINAL_BLOCK)


def reduction_tiles(channels: int, vectors: int, dtype: torch.dtype) -> list[Tile]:
    """Return candidates for the forward kernel; the last one fits wherever Triton runs."""
    columns = min(128, block(vectors))
    if dtype == torch.float32:
        columns = min(64, columns)
        return [
            Tile(64, 64, 32, columns, num_warps=4, num_stages=3),
            Tile(128, 64, 32, columns, num_warps=8, num_stages=3),
            Tile(32, 64, 32, columns, num_warps=4, num_stages=2),
        ]
    tiles = [
        Tile(128, 128, 64, columns, num_warps=8, num_stages=3),
        Tile(128, 64, 64, columns, num_warps=4, num_stages=3),
        Tile(64, 64, 64, columns, num_warps=4, num_stages=3),
    ]
    if channels <= 256:
        whole = block(channels)
        tiles = [
            Tile(64, 64, whole, columns, num_warps=4, num_stages=2),
            Tile(128, 64, whole, columns, num_warps=8, num_stages=2),
            Tile(64, 128, whole, columns, num_warps=4, num_stages=2),
            *tiles[::2],
        ]
    return tiles


def gradient_tiles(channels: int, vectors: int, columns: int, dtype: torch.dtype) -> list[Tile]:
    """Return candidates for a backward kernel that writes so many columns."""
    if dtype == torch.float32:
        columns = min(64, block(columns))
        return [
            Tile(64, 64, 32, columns, num_warps=8, num_stages=2),
            Tile(32, 32, 32, columns, num_warps=4, num_stages=2),
        ]
    if channels <= 256 and not vectors:
        whole = block(channels)
        return [
            Tile(64, 64, whole, whole, num_warps=8, num_stages=2),
            Tile(64, 32, whole, whole, num_warps=8, num_stages=2),
            Tile(32, 64, whole, whole, num_warps=8, num_stages=2),
            Tile(32, 32, 64, min(64, whole), num_warps=4, num_stages=2),
        ]
    columns = min(128, block(columns))
    # 4 warps: with 8, Triton 3.2 crashes on these shapes for Hopper
    return [
        Tile(64, 64, 64, columns, num_warps=4, num_stages=3),
        Tile(64, 32, 64, columns, num_warps=4, num_stages=3),
        Tile(32, 64, 64, columns, num_warps=4, num_stages=3),
        Tile(32, 32, 64, min(64, columns), num_warps=4, num_stages=2),
    ]


def block(length: int) -> int:
    """Return the power of two that holds so many, from the smallest that a product takes."""
    return max(16, 1 << (length - 1).bit_length()) if length > 0 else 16


def launch(
    kernel: Any,
    key: tuple[Any, ...],
    tiles: list[Tile],
    programs: Callable[[Tile], int],
    arguments: dict[str, Any],
    device: torch.device,
) -> None:
    """Start a kernel with the best of the tiles.

    The first launch for a key times them all and waits for the device, unless algorithms are to be
    deterministic, a graph is being captured or there is no device: then the first that fits is
    taken. Kernels only write, so that running one again changes nothing.

    Args:
        kernel: a function of Triton.
        key: names the kernel and the kind of problem.
        tiles: candidates.
        programs: how many programs a tile needs.
        arguments: of the kernel, without those of the tile.
        device: where the tensors are.
    """

    def start(tile: Tile) -> None:
        if programs(tile) > 0:  # a batch of 0 has nothing to do
            # said outright, because the default differs between versions of Triton
            kernel[(programs(tile),)](**arguments, **asdict(tile), enable_fp_fusion=True)

    timed = _may_time(device)
    key = (*key, timed, device)
    with torch.cuda.device_of(arguments["query"]):
        if key in _CHOSEN:
            start(_CHOSEN[key])
            return
        fitting = _start_those_that_fit(start, tiles, only_one=not timed)
        _CHOSEN[key] = _fastest(start, fitting) if timed else fitting[0]


def _may_time(device: torch.device) -> bool:
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return not torch.cuda.is_current_stream_capturing()


def _start_those_that_fit(
    start: Callable[[Tile], None], tiles: list[Tile], only_one: bool
) -> list[Tile]:
    """Return the tiles, or the first, for which the GPU has the memory; the kernel has then run."""
    from triton.runtime.errors import OutOfResources

    fitting: list[Tile] = []
    failure = None
    for tile in tiles:
        try:
            start(tile)
        except OutOfResources as error:
            failure = error
            continue
        fitting.append(tile)
        if only_one:
            break
    if not fitting:
        raise RuntimeError(f"prototype_similarity: no tile of {tiles} fits the GPU") from failure
    return fitting


def _fastest(start: Callable[[Tile], None], tiles: list[Tile]) -> Tile:
    """Return the tile that takes least time; each has run before, so none is compiled here."""
    from triton.testing import do_bench

    times = [do_bench(partial(start, tile), warmup=_WARM_UP, rep=_TIMED) for tile in tiles]
    return tiles[times.index(min(times))]
