"""What a worker of a cluster does: load a bundle once, segment scans into a folder of its own."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import fsmis_components
from fsmis_components.bundle import folder_evaluator, parsed_config
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.run_record import CaseRow, ResultFiles, RunRecord
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.packaging import content_hash
from fsmis_components.support.support_pack import SupportPack

UNFINISHED = ".cluster"  # in the output folder: what workers made and the driver has not taken yet


@dataclass(frozen=True)
class ScanJob:
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
    """Segment scans of a job, one at a time, in a process of its own."""

    def __init__(self, job: ScanJob) -> None:
        self.job = job
        # a worker that was given up for lost and lives on writes where nobody looks
        name = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self.folder = job.output_dir / UNFINISHED / name

    def load(self) -> None:
        """Load the bundle.

        Raises:
            DataError: this machine has not what the driver has.
        """
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
