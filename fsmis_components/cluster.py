"""A folder segmented on a Ray cluster: what its workers do, and who gives it to them.

Plain actors, not Ray Data: a dataset repeats whole blocks of rows and gives up as a whole over a
row that kills its worker; here that row is one scan that failed.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fsmis_components
from fsmis_components.bundle import folder_evaluator, parsed_config
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.run_record import DONE, FAILED, CaseRow, ResultFiles, RunRecord
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.inferers.folder_evaluator import Begun, FolderEvaluator
from fsmis_components.packaging import content_hash
from fsmis_components.support.support_pack import SupportPack

UNFINISHED = ".cluster"  # in the output folder: what workers made and the driver has not taken yet
_TRIES = 3  # of a scan whose worker ends, and of workers that end before their first scan
_GIVEN_UP = (
    f"its worker ended {_TRIES} times before it was done, as where memory is too little; give each "
    "worker more cores, so that fewer share a machine, or take a larger one."
)
_MOMENT = 1.0  # seconds after which the caller is asked whether there is something else to do
# the record is written whole, and of 100,000 scans that takes seconds: a tenth of the time at most
_SHARE = 10
_OFTEN = 1.0  # seconds: between two times at least


class ScanJob(NamedTuple):
    """What the workers of a run share; paths are whole."""

    bundle: str  # name of a shipped one, or the path of another
    knobs: dict[str, Any]  # of its `inference.json`
    support: Path  # a stored `SupportPack`
    output_dir: Path  # of the run
    threads: int  # of a worker
    package: str  # `content_hash` of the driver's package


class FinishedScan(NamedTuple):
    """What became of a scan."""

    case: Case
    row: CaseRow
    scan: str = ""  # hash of the scan; empty where it could not be read
    files: ResultFiles | None = None  # where the results lie, all there where the row is "done"


class ScanWorker:
    """Segment scans of a job, one at a time, in a process and a folder of its own."""

    def __init__(self, job: ScanJob) -> None:
        self.job = job
        # a worker that was given up for lost and lives on writes where nobody looks
        name = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self.folder = job.output_dir / UNFINISHED / name

    def load(self) -> None:
        """Load the bundle; a DataError where this machine has not what the driver has."""
        job, machine = self.job, socket.gethostname()
        if not self.folder.parent.is_dir():
            raise DataError(
                f"{machine}: does not see {job.output_dir}; put scans and results on a file system "
                "that all machines share, under the same path."
            )
        if content_hash(Path(fsmis_components.__file__).parent) != job.package:
            raise DataError(
                f"{machine}: has another version of fsmis_components than the machine where the "
                "command was given; install the same on all."
            )
        torch.set_num_threads(job.threads)
        parser = parsed_config(bundle_folder(job.bundle), "inference", job.knobs)
        parser["data"] = []  # the scans come one by one
        self.evaluator = folder_evaluator(parser)
        self.pack = SupportPack.load(job.support)
        self.pack.check_fits(self.evaluator.network)
        maps = self.evaluator.volume_inferer.uncertainty
        self.places = RunRecord(self.folder, (), {}, maps, self.evaluator.dicom_seg)

    def segment(self, case: Case) -> FinishedScan:
        """Segment a scan; one that fails has a row that says why."""
        files = self.places.files(case)
        row, scan = self.evaluator.segment_case(case, self.pack, files)
        return FinishedScan(case, row, scan, files)


class Workers:
    """Actors that segment scans, each scan done once; those that are lost are replaced.

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
        does not come back. One whose worker ends three times has failed. That a worker cannot load
        the bundle, or all end while they do, is a DataError.
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
                            reason = str(error).strip().partition("\n")[0]
                            raise DataError(
                                f"workers end while they load the bundle ({reason}); try fsmis "
                                "segment on their machines, which tells more."
                            ) from error
                        continue
                    tries[case.stem] += 1
                    if tries[case.stem] < _TRIES:
                        left.append(case)
                        continue
                    finished = FinishedScan(case, CaseRow(case.stem, FAILED, 0.0))
                    finished.row.message = f"{case.image}: {_GIVEN_UP}"
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


class ClusterEvaluator(FolderEvaluator):
    """Segment a folder as `FolderEvaluator` does, its scans by workers.

    The support is made here, and corrected masks are taken over here. Workers put results into
    folders of their own; from there they are moved here, after the record knows them, so a scan has
    one result whichever of its workers died, and whichever only seemed to.
    """

    # set before `run`: starts the workers with the support that was resolved
    start_workers: Callable[[SupportPack], Workers]

    def _segment_left(self, begun: Begun, global_epoch: int) -> None:
        cases = [item["case"] for item in self.data_loader]
        stems = [case.stem for case in cases]
        corrected = self._own & begun.corrected.keys()
        cases = [case for case in cases if case.stem in self._own - corrected]
        self._own = corrected
        super()._segment_left(begun, global_epoch)
        unfinished = self.output_dir / UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)
        with writing(unfinished):
            unfinished.mkdir(exist_ok=True)
        workers = self.start_workers(begun.pack)
        waiting: list[FinishedScan] = []
        due = 0.0
        try:
            for finished in workers.segment(cases):
                self._bar.set_postfix_str(f"{workers.ready} workers")
                if finished is not None:
                    waiting.append(finished)
                if waiting and time.monotonic() >= due:
                    began = time.monotonic()
                    ready, waiting = waiting, []  # at once: they are not taken twice
                    self._take(begun.record, ready)
                    due = time.monotonic() + max(_OFTEN, _SHARE * (time.monotonic() - began))
        finally:
            workers.close()
            self._take(begun.record, waiting)
            begun.record.sort(stems)
            # a worker that was given up for lost may still write there; the next run removes that
            shutil.rmtree(unfinished, ignore_errors=True)

    def _take(self, record: RunRecord, finished: list[FinishedScan]) -> None:
        """Move what workers have finished to its place."""
        made = {
            each.case: each.files for each in finished if each.files and each.row.status == DONE
        }
        record.claim({case: files.mask for case, files in made.items()})
        with writing(self.output_dir):
            for case, files in made.items():
                for source, place in zip(files, record.files(case), strict=True):
                    if source is not None and place is not None:
                        place.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(source, place)
        for each in finished:
            self._add(record, each.case, each.row, each.scan)
        record.write()
