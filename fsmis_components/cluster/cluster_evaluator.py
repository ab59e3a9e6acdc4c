"""The folder evaluator whose scans are segmented by workers: it alone writes results and record."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

from fsmis_components.cluster.ray_workers import Workers
from fsmis_components.cluster.scan_worker import UNFINISHED, FinishedScan
from fsmis_components.data.errors import writing
from fsmis_components.data.run_record import DONE, RunRecord
from fsmis_components.inferers.folder_evaluator import Begun, FolderEvaluator
from fsmis_components.support.support_pack import SupportPack

# the record is written whole, and of 100,000 scans that takes seconds: a tenth of the time at most
_SHARE = 10
_OFTEN = 1.0  # seconds: between two times at least


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
        done = [(each.case, each.files) for each in finished if each.row.status == DONE]
        record.claim({case: files.mask for case, files in done if files is not None})
        with writing(self.output_dir):
            for case, files in done:
                for made, place in zip(files or (), record.files(case), strict=True):
                    if made is not None and place is not None:
                        place.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(made, place)
        for each in finished:
            self._add(record, each.case, each.row, each.scan)
        record.write()
