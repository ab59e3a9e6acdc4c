"""A handler that ends a training in time, so that it can be done in pieces of a few minutes."""

from __future__ import annotations

import logging
from time import monotonic

import ignite.distributed as idist
from ignite.engine import Engine, Events

from fsmis_components.data.errors import DataError, exit_on_data_error

logger = logging.getLogger(__name__)


@exit_on_data_error
class TimeLimit:
    """End the run after an epoch where one more, as long as the longest so far, would be too late.

    At least one epoch is done, so that a training advances under any limit.

    Args:
        minutes: the limit; None: there is none.
        began: value of ``time.monotonic()`` from which the time counts; None: now. A config takes
            it in ``initialize``, before volumes are read and pseudo-labels are made.

    Raises:
        SystemExit: not a number above 0.
    """

    def __init__(self, minutes: float | None = None, began: float | None = None) -> None:
        if minutes is not None and not (isinstance(minutes, int | float) and minutes > 0):
            raise DataError(
                f"max_minutes: expected minutes above 0, or None for no limit, got {minutes!r}."
            )
        self.minutes = minutes
        self.began = monotonic() if began is None else began
        self.longest = 0.0
        self.stopped = False

    def attach(self, engine: Engine) -> None:
        """Watch the engine; list this handler behind :class:`TrainingState`, which saves first."""
        if self.minutes is not None:
            engine.add_event_handler(Events.STARTED, self._begin)
            engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)

    def _begin(self, engine: Engine) -> None:
        self.stopped = False
        # attached only now, to come behind the saving of the state, which does the same
        if not engine.has_event_handler(self._end_epoch, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
            engine.add_event_handler(Events.COMPLETED, self._report)

    def _begin_epoch(self, engine: Engine) -> None:
        self.epoch_began = monotonic()

    def _end_epoch(self, engine: Engine) -> None:
        now = monotonic()
        # with its validation, if one was, and the saving
        self.longest = max(self.longest, now - self.epoch_began)
        last = engine.state.epoch >= (engine.state.max_epochs or 0)
        late = not last and now - self.began + self.longest > 60 * (self.minutes or 0.0)
        if idist.get_world_size() > 1:  # all processes must stop after the same epoch
            late = bool(idist.broadcast(float(late), src=0))
        if late:
            self.stopped = True
            engine.terminate()

    def _report(self, engine: Engine) -> None:
        if self.stopped:
            logger.info(
                "stopped after epoch %d of %d for max_minutes; give the same command to go on",
                engine.state.epoch,
                engine.state.max_epochs,
            )
