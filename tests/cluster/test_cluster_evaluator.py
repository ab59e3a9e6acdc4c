"""A folder whose scans workers segment, here in the same process: what one process would write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from block_scans import block_label, write_nifti, write_scan
from fake_network import IntensityNetwork
from folder_results import record, results
from monai.data import Dataset

from fsmis_components.cluster import ClusterEvaluator, FinishedScan
from fsmis_components.data.cases import Case
from fsmis_components.data.run_record import FAILED, CaseRow, RunRecord
from fsmis_components.inferers import FolderEvaluator, VolumeInferer, query_items
from fsmis_components.support import Corrections, SupportSource
from fsmis_components.support.support_pack import SupportPack

NAMES = [f"image_{number}" for number in range(2, 6)]


@pytest.fixture
def root(tmp_path: Path, blank_overlays: None) -> Path:
    write_scan(tmp_path / "s", 1, block_label())
    for name in NAMES:
        write_scan(tmp_path / "q", int(name.removeprefix("image_")))
    return tmp_path


def evaluator(
    kind: type[FolderEvaluator], root: Path, output: str, corrections: str | None = None
) -> Any:
    corrected = Corrections(corrections and root / corrections, root / "q")
    support = SupportSource(root / "s", spatial_size=24, corrections=corrected)
    return kind(
        device="cpu",
        dataset=Dataset(query_items(root / "q")),
        network=IntensityNetwork(),
        inferer=VolumeInferer(support, uncertainty=True, steps={"registration": False}),
        output_dir=root / output,
        progress=False,
        corrections=corrected,
    )


class LocalWorkers:
    """In place of `Workers`: the last scan comes first; `stops` ends the run after so many."""

    def __init__(self, root: Path, pack: SupportPack, output: str, stops: int = 9) -> None:
        self.worker = evaluator(FolderEvaluator, root, "none")
        self.pack, self.stops = pack, stops
        self.places = RunRecord(root / output / ".cluster" / "worker", (), {}, True)

    def segment(self, cases: Sequence[Case]) -> Iterator[FinishedScan | None]:
        for number, case in enumerate(reversed(cases)):
            if number == self.stops:
                raise KeyboardInterrupt
            files = self.places.files(case)
            yield FinishedScan(case, *self.worker.segment_case(case, self.pack, files), files)
            yield None

    ready = 1

    def close(self) -> None:
        assert self.places.output_dir.is_dir()  # what is there is still to be taken


def on_cluster(root: Path, corrections: str | None = None, stops: int = 9) -> ClusterEvaluator:
    found = evaluator(ClusterEvaluator, root, "many", corrections)
    found.start_workers = lambda pack: LocalWorkers(root, pack, "many", stops)
    return found


def test_results_record_and_failure_are_those_of_one_process(root: Path) -> None:
    (root / "q" / "image_4.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(SystemExit) as alone:
        evaluator(FolderEvaluator, root, "one").run()
    with pytest.raises(SystemExit) as many:
        on_cluster(root).run()
    assert str(many.value) == str(alone.value).replace(str(root / "one"), str(root / "many"))
    assert results(root / "many") == results(root / "one")
    assert record(root / "many") == record(root / "one")
    assert not (root / "many" / ".cluster").exists()


def test_an_interrupted_run_goes_on(root: Path) -> None:
    with pytest.raises(SystemExit, match="interrupted with 2 of 4 scans done"):
        on_cluster(root, stops=2).run()
    there = {path: path.stat().st_mtime_ns for path in (root / "many").glob("*.nii.gz")}
    assert len(there) == 4
    on_cluster(root).run()
    assert {path: path.stat().st_mtime_ns for path in there} == there
    evaluator(FolderEvaluator, root, "one").run()
    assert results(root / "many") == results(root / "one")


def test_corrected_masks_are_taken_over_here(root: Path) -> None:
    mask = write_nifti(root / "corrected" / "image_3_seg.nii.gz", block_label({1: 1}))
    evaluator(FolderEvaluator, root, "one", "corrected").run()
    on_cluster(root, "corrected").run()
    assert mask.is_file() and results(root / "many") == results(root / "one")


def test_a_scan_that_was_given_up_is_a_line(root: Path) -> None:
    class NoWorkers(LocalWorkers):
        def segment(self, cases: Sequence[Case]) -> Iterator[FinishedScan | None]:
            for case in cases:
                yield FinishedScan(case, CaseRow(case.stem, FAILED, 0.0, message="given up."))

        def close(self) -> None: ...

    found = on_cluster(root)
    found.start_workers = lambda pack: NoWorkers(root, pack, "many")
    with pytest.raises(SystemExit, match="4 of 4 scans failed, .*: given up; given up;"):
        found.run()
    assert set(record(root / "many")["order"]) == set(NAMES)
