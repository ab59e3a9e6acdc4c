"""A clock that books time and peak memory to the stage that is running."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from fsmis_components.evaluation.inference_benchmark.peak_memory import (
    reset_resident_peak,
    resident_peak,
)

REST = "rest"


@dataclass(frozen=True)
class StageCost:
    """What a stage cost.

    Attributes:
        seconds: wall-clock time.
        processor_seconds: time of all processors that worked for this process, which other work
            on the machine changes less.
        resident_mib: largest resident memory of the process in it, all that was there before
            included; NaN where the system does not tell.
        gpu_mib: largest memory of PyTorch's tensors on the GPU in it; 0 on a CPU.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    resident_mib: float = math.nan
    gpu_mib: float = 0.0

    def joined(self, other: StageCost) -> StageCost:
        """Both one after the other."""
        return StageCost(
            self.seconds + other.seconds,
            self.processor_seconds + other.processor_seconds,
            # fmax passes over the NaN of a stage that has not run
            float(np.fmax(self.resident_mib, other.resident_mib)),
            max(self.gpu_mib, other.gpu_mib),
        )


class StageClock:
    """Books everything that happens to one stage; what no stage claims is "rest".

    Args:
        device: where the network runs; a GPU is waited for where a stage begins and ends, so that
            its work counts for the stage that asked for it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._stages: dict[str, StageCost] = {}
        self._running = REST
        self._since = self._processor_since = 0.0
        self._begin()

    @contextmanager
    def stage(self, name: str, within: str = REST) -> Iterator[None]:
        """Book the body to a stage.

        Args:
            name: of the stage.
            within: the stage of which it is a part that is booked by itself. While any other stage
                runs, the body belongs to that one.
        """
        if self._running != within:
            yield
            return
        self._book()
        self._running = name
        try:
            yield
        finally:
            self._book()
            self._running = within

    def split(self) -> dict[str, StageCost]:
        """What each stage cost since the last split, in order of appearance."""
        self._book()
        stages, self._stages = self._stages, {}
        return stages

    def _book(self) -> None:
        self._wait()
        gpu = torch.cuda.max_memory_allocated(self.device) if self._on_gpu else 0
        passed = StageCost(
            time.perf_counter() - self._since,
            time.process_time() - self._processor_since,
            resident_peak(),
            gpu / 2**20,
        )
        before = self._stages.get(self._running, StageCost())
        self._stages[self._running] = before.joined(passed)
        self._begin()

    def _begin(self) -> None:
        self._wait()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        reset_resident_peak()
        self._since, self._processor_since = time.perf_counter(), time.process_time()

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self.device)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"
