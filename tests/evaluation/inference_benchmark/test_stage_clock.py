from __future__ import annotations

import math
from pathlib import Path

import pytest

from fsmis_components.evaluation.inference_benchmark import StageClock, StageCost, stage_clock
from fsmis_components.evaluation.inference_benchmark.peak_memory import (
    reset_resident_peak,
    resident_peak,
)


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch):
    """A clock that moves by hand."""
    now = [0.0]
    monkeypatch.setattr(stage_clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(stage_clock.time, "process_time", lambda: 2 * now[0])
    monkeypatch.setattr(stage_clock, "resident_peak", lambda: 100 + now[0])
    monkeypatch.setattr(stage_clock, "reset_resident_peak", lambda: None)

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def seconds(clock: StageClock) -> dict[str, float]:
    return {name: cost.seconds for name, cost in clock.split().items()}


def test_every_second_is_booked_once(tick) -> None:
    clock = StageClock()
    tick(1)
    with clock.stage("read"):
        tick(2)
    tick(4)
    with clock.stage("read"):
        tick(8)
    assert seconds(clock) == {"rest": 5, "read": 10}
    assert seconds(clock) == {"rest": 0}


def test_a_stage_within_another_belongs_to_it_unless_it_is_a_named_part(tick) -> None:
    clock = StageClock()
    with clock.stage("support"):
        tick(1)
        with clock.stage("slices"):
            tick(2)
        with clock.stage("read support", within="support"):
            tick(4)
            with clock.stage("slices"):
                tick(8)
        tick(16)
    with clock.stage("read support", within="support"):  # not within it: all else
        tick(32)
    assert seconds(clock) == {"rest": 32, "support": 19, "read support": 12}


def test_an_error_ends_its_stage(tick) -> None:
    clock = StageClock()
    with pytest.raises(OSError), clock.stage("write"):
        tick(1)
        raise OSError
    tick(2)
    assert seconds(clock) == {"rest": 2, "write": 1}


def test_peaks_are_the_largest(tick) -> None:
    clock = StageClock()
    with clock.stage("read"):
        tick(1)
    with clock.stage("write"):
        tick(5)
    costs = clock.split()
    assert costs["read"].resident_mib == 101 and costs["write"].resident_mib == 106
    joined = costs["write"].joined(costs["read"])
    assert joined == StageCost(6.0, 12.0, 106.0, 0.0)
    assert StageCost(1.0).joined(StageCost(1.0, 1.0, 5.0)).resident_mib == 5
    assert math.isnan(StageCost().joined(StageCost()).resident_mib)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no Linux: no peak memory")
def test_resident_peak_begins_anew() -> None:
    large = bytearray(200 << 20)
    with_it = resident_peak()
    del large
    reset_resident_peak()
    assert resident_peak() < with_it - 150
