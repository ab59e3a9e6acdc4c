"""The temporary memory of a call: its peak above inputs and results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_MEMORY_EVENT = "[memory]"


def temporary_bytes(call: Callable[[], Sequence[Tensor]], device: torch.device) -> int:
    """Return the most bytes that were allocated at once during a call, less those of its results.

    On a GPU the allocator's own count. A CPU's allocator keeps none, and the memory of the process
    is no substitute: it holds what earlier calls gave back, and grows in pages. So the profiler
    notes each allocation and release of PyTorch's allocator with its time, in whichever thread (the
    backward pass has its own), and the largest running sum is the peak. A mode that intercepts
    operators would miss what a kernel allocates inside. Neither count sees what a library takes
    from the system by itself: MKL's packed panels, the stack of a compiled loop.

    Args:
        call: returns its results; what it reads exists before.
        device: where it runs.
    """
    if device.type == "cuda":
        return _on_gpu(call, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        results = call()
    kineto = recorded.profiler.kineto_results if recorded.profiler else None
    if kineto is None:
        raise RuntimeError("temporary_bytes: the profiler has no results")
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in kineto.events()
        if event.name() == _MEMORY_EVENT and event.device_type() == DeviceType.CPU
    )
    total = peak = 0
    for _, change in changes:
        total += change
        peak = max(peak, total)
    return max(0, peak - _bytes(results))


def _on_gpu(call: Callable[[], Sequence[Tensor]], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    results = call()
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before - _bytes(results))


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of the storages of tensors, each counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())
