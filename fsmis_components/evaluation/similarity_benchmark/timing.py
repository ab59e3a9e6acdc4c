"""Paired timing: the contenders take turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Ratio:
    """How many times faster a contender was than another one, round by round.

    Attributes:
        median: above 1: faster.
        low: lower quartile.
        high: upper quartile.
    """

    median: float
    low: float
    high: float


def interleaved_seconds(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    shortest: float = 0.02,
) -> dict[str, list[float]]:
    """Time calls in rounds; in each round every call has its turn, each time another one begins.

    Operands stay in the caches where they fit, as the features that an encoder has just written do.

    Args:
        calls: by name; each must have run before, so that nothing is compiled or tuned now.
        rounds: turns of each call.
        device: waited for before and after each turn.
        shortest: seconds that a turn should last; a shorter call is repeated within it.

    Returns:
        Seconds of one call, for each round.
    """
    repeats = {
        name: _repeats(seconds_of(call, 1, device), shortest) for name, call in calls.items()
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            found[name].append(seconds_of(calls[name], repeats[name], device))
    return found


def paired_ratio(base: Sequence[float], own: Sequence[float]) -> Ratio:
    """The seconds of the base over a contender's own, within each round."""
    low, median, high = np.quantile(np.divide(base, own), [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))


def seconds_of(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of one call, the mean of so many in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _repeats(seconds: float, shortest: float) -> int:
    return min(_MOST_REPEATS, max(1, math.ceil(shortest / max(seconds, 1e-9))))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
