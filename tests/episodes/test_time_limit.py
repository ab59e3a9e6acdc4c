"""The time limit of a training: it stops in time, after the state is saved, and not at the end."""

from __future__ import annotations

import logging
from pathlib import Path

import ignite.distributed as idist
import pytest
from ignite.engine import Engine, Events

from fsmis_components.data.weights import load_state
from fsmis_components.episodes import TimeLimit, TrainingState


class Clock:
    """A clock that an epoch of one step moves by a minute, an epoch with a validation by two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr("fsmis_components.episodes.time_limit.monotonic", lambda: self.seconds)

    def step(self, engine: Engine, batch: object) -> None:
        self.seconds += 60.0

    def validate(self, engine: Engine) -> None:
        self.seconds += 60.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def trained(clock: Clock, minutes: float | None, every: int = 100, start: float = 0.0) -> int:
    """Return how many of ten epochs are done; every so many there is a validation."""
    engine = Engine(clock.step)
    limit = TimeLimit(minutes)
    clock.seconds += start
    limit.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=every), clock.validate)
    engine.run([0], max_epochs=10)
    return engine.state.epoch


@pytest.mark.parametrize(
    ("minutes", "epochs"), [(None, 10), (1.0, 1), (2.0, 2), (3.9, 3), (4.0, 4), (11, 10), (0.1, 1)]
)
def test_stops_before_the_epoch_that_would_be_late(clock, minutes, epochs) -> None:
    assert trained(clock, minutes) == epochs


def test_counts_what_came_before_the_first_epoch(clock: Clock) -> None:
    assert trained(clock, 4.0, start=90.0) == 2


def test_counts_from_a_given_moment(clock: Clock) -> None:
    engine = Engine(clock.step)
    TimeLimit(4.0, began=clock.seconds - 120.0).attach(engine)
    engine.run([0], max_epochs=10)
    assert engine.state.epoch == 2


def test_reckons_with_a_validation_once_one_was_seen(clock: Clock) -> None:
    # 1 + 2 + 1 + 2 minutes; then two more, as for an epoch with validation, would make 8
    assert trained(clock, 7.9, every=2) == 4
    assert trained(clock, 8.0, every=2) == 5


def test_the_state_is_saved_before_and_the_next_run_goes_on(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for done in (2, 4, 5, 5):
        engine = Engine(clock.step)
        TrainingState(tmp_path, {}, {}).attach(engine)
        TimeLimit(2.0).attach(engine)
        caplog.clear()
        engine.run([0], max_epochs=5)
        assert load_state(tmp_path)["epoch"] == done
        said = f"stopped after epoch {done} of 5 for max_minutes; give the same command to go on"
        assert (said in caplog.messages) == (done < 5)


def test_the_sentence_is_the_last(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(clock.step)
    TimeLimit(1.0).attach(engine)
    engine.add_event_handler(Events.COMPLETED, lambda: logging.info("another end"))
    engine.run([0], max_epochs=2)
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("ignite")]
    assert [message.partition(" after ")[0] for message in ours] == ["another end", "stopped"]


def test_all_processes_do_what_the_first_one_decides(clock: Clock, monkeypatch) -> None:
    asked = []

    def broadcast(value: float, src: int) -> float:
        asked.append((value, src))
        return 1.0

    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "broadcast", broadcast)
    assert trained(clock, 1000.0) == 1
    assert asked == [(0.0, 0)]


@pytest.mark.parametrize("minutes", [0, -1, "5", float("nan")])
def test_refuses_what_is_no_limit(minutes: object) -> None:
    with pytest.raises(SystemExit, match="max_minutes: expected minutes above 0"):
        TimeLimit(minutes)
