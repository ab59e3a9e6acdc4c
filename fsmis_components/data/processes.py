"""One run in several processes, as `torchrun` starts them: what the first makes, all get."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch.distributed as dist

from fsmis_components.data.errors import DataError

T = TypeVar("T")
# processes wait for each other only at the beginning and at the end of a folder, which may be days;
# one that ends is noticed at once, because its connections break
_LONGEST_WAIT = timedelta(days=30)


def join_processes() -> None:
    """Make those that `torchrun` started one group; scans are shared out, so no GPU talks."""
    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)


def process_rank() -> int:
    """Number of this process; 0 is the first, or the only one."""
    return dist.get_rank() if _several() else 0


def num_processes() -> int:
    """How many share a run."""
    return dist.get_world_size() if _several() else 1


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them: the others get a copy, which can be pickled.

    Where the first one ends by an error, the others end by a `DataError`.
    """
    made = [make() if process_rank() == 0 else None]
    if num_processes() > 1:
        with _told_where_one_ended():
            dist.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def wait_for_all() -> None:
    """Return when all processes have come here; a `DataError` where one has ended before."""
    if num_processes() > 1:
        with _told_where_one_ended():
            dist.barrier()


@contextmanager
def interrupted_together() -> Iterator[None]:
    """In one of several processes, be interrupted once by what else would end it in the middle.

    Where one process is killed or Ctrl+C is pressed, `torchrun` sends a signal to all that are
    left, sometimes twice, and gives them half a minute to write down what they have.
    """
    if num_processes() == 1:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    # not after an interruption: what is left to do then must not be interrupted again
    for each, handler in former.items():
        signal.signal(each, handler)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _told_where_one_ended() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DataError(
            "another process of this run has ended, see its own message; what is done is kept, so "
            "give the same command again to go on."
        ) from error
