"""The largest resident memory of this process since a moment; Linux tells it, others do not."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # man 5 proc: resets the peak resident set size


def resident_peak() -> float:
    """MiB since the last reset; NaN where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return math.nan
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return math.nan


def reset_resident_peak() -> None:
    """Let the peak begin anew; where that is forbidden, it stays that of the whole process."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
