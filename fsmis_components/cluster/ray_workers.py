"""Workers on a Ray cluster, each scan done once however they end.

Plain actors, not Ray Data: a dataset repeats whole blocks of rows and gives up as a whole over a
row that kills its worker; here that row is one scan that failed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fsmis_components.cluster.scan_worker import FinishedScan
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.run_record import FAILED, CaseRow

_TRIES = 3  # of a scan whose worker ends, and of workers that end before their first scan
_MOMENT = 1.0  # seconds after which the caller is asked whether there is something else to do


class Workers:
    """Actors that segment scans, replaced where they are lost.

    Args:
        ray: the module, which nothing else here needs.
        make: starts an actor; it has the methods of `ScanWorker`. Called again where one is lost.
        count: how many there are at once.
    """

    def __init__(self, ray: Any, make: Callable[[], Any], count: int) -> None:
        self._ray = ray
        self._make = make
        self._count = count
        self._busy: dict[Any, tuple[Any, Case | None]] = {}  # by what they were asked for last
        self._idle: list[Any] = []

    def segment(self, cases: Sequence[Case]) -> Iterator[FinishedScan | None]:
        """Yield each scan once, as it is finished, and None now and then.

        A scan is given to a worker that has loaded the bundle, so none waits for a machine that
        does not come back. One whose worker ends three times has failed.

        Raises:
            DataError: a worker cannot load the bundle, or all end while they do.
        """
        left, tries = deque(cases), Counter[str]()
        remaining, failed_starts = len(cases), 0
        for _ in range(min(self._count, len(cases))):
            self._start()
        while remaining:
            done, _ = self._ray.wait(list(self._busy), timeout=_MOMENT)
            for answer in done:
                actor, case = self._busy.pop(answer)
                try:
                    finished = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, DataError):
                        raise DataError(str(error.cause)) from error
                    raise
                except self._ray.exceptions.RayError as error:  # the process or its machine ended
                    self._start()
                    if case is None:
                        failed_starts += 1
                        if failed_starts == _TRIES * self._count:
                            raise DataError(_ends_early(error)) from error
                        continue
                    tries[case.stem] += 1
                    if tries[case.stem] < _TRIES:
                        left.append(case)
                        continue
                    finished = _given_up(case)
                else:
                    self._idle.append(actor)
                    failed_starts = 0
                if case is not None:
                    remaining -= 1
                    yield finished
            while left and self._idle:
                actor, case = self._idle.pop(), left.popleft()
                self._busy[actor.segment.remote(case)] = (actor, case)
            yield None

    @property
    def ready(self) -> int:
        """How many have loaded the bundle."""
        return len(self._idle) + sum(case is not None for _, case in self._busy.values())

    def close(self) -> None:
        """End the workers, also those in the middle of a scan."""
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._make()
        self._busy[actor.load.remote()] = (actor, None)


def _given_up(case: Case) -> FinishedScan:
    message = (
        f"{case.image}: its worker ended {_TRIES} times before it was done, as where memory is too "
        "little; give each worker more cores, so that fewer share a machine, or take a larger one."
    )
    return FinishedScan(case, CaseRow(case.stem, FAILED, 0.0, message=message))


def _ends_early(error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0]
    return (
        f"workers end while they load the bundle ({reason}); try fsmis segment on their machines, "
        "which tells more."
    )
