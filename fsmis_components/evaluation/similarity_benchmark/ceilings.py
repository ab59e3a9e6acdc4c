"""The ceilings of a device, measured before a run: matrix products and copies."""

from __future__ import annotations

import torch

from fsmis_components.evaluation.similarity_benchmark.timing import seconds_of
from fsmis_components.evaluation.similarity_benchmark.work import Ceilings

# so large that neither the start of a kernel nor a cache decides
_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED = {"cpu": 2**28, "cuda": 2**30}
_RUNS = 11


def measure_ceilings(
    dtype: torch.dtype,
    device: torch.device,
    *,
    side: int | None = None,
    copied: int | None = None,
    runs: int = _RUNS,
) -> Ceilings:
    """Measure the fastest of several matrix products and copies.

    A ceiling is the best that was seen, not the median: a run beside others is slower, never
    faster than the device. Small problems can lie above the second ceiling, as they stay in caches.

    Args:
        dtype: of the matrix product.
        device: where to measure.
        side: of the square matrices; default: large for the device.
        copied: bytes to copy; likewise.
        runs: how many of each.
    """
    side = side or _SIDE.get(device.type, _SIDE["cuda"])
    copied = copied or _COPIED.get(device.type, _COPIED["cuda"])
    left = torch.ones(side, side, dtype=dtype, device=device)
    right, product = torch.ones_like(left), torch.empty_like(left)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        torch.mm(left, right, out=product)  # the first of each is slower
        target.copy_(source)
        multiplied = min(
            seconds_of(lambda: torch.mm(left, right, out=product), 1, device) for _ in range(runs)
        )
        moved = min(seconds_of(lambda: target.copy_(source), 1, device) for _ in range(runs))
    return Ceilings(2 * side**3 / multiplied, 2 * copied / moved)
