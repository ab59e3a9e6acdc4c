from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmis_components.cluster import FinishedScan, Workers
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.run_record import DONE, FAILED, CaseRow

ray: Any = pytest.importorskip("ray", reason="ray is not installed: pip install '.[cluster]'")
pytestmark = pytest.mark.slow
CASES = [Case(str(number), Path(f"image_{number}.nii.gz")) for number in range(9)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def workers(folder: Path, count: int = 2, cannot_load: str = "") -> Workers:
    """Workers that count in a folder what they were given, and die over some scans."""

    class Worker:  # local, so that Ray sends the class itself
        def load(self) -> None:
            if cannot_load == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if cannot_load:
                raise DataError(cannot_load)

        def segment(self, case: Case) -> FinishedScan:
            (folder / f"{case.name}_{os.getpid()}").touch()
            tried = len(list(folder.glob(f"{case.name}_*")))
            if case.name == "5" or (case.name == "7" and tried == 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return FinishedScan(case, CaseRow(case.stem, DONE, 0.0))

    actor = ray.remote(Worker).options(num_cpus=1)
    return Workers(ray, actor.remote, count)


def test_every_scan_is_finished_once_though_two_kill_their_workers(tmp_path: Path) -> None:
    pool = workers(tmp_path)
    found = [each for each in pool.segment(CASES) if each is not None]
    pool.close()
    assert sorted(each.case.name for each in found) == sorted(case.name for case in CASES)
    [failed] = [each for each in found if each.row.status == FAILED]
    assert failed.case.name == "5"
    assert failed.row.message.startswith("image_5.nii.gz: its worker ended 3 times")
    given = Counter(path.name.partition("_")[0] for path in tmp_path.iterdir())
    assert given == {case.name: {"5": 3, "7": 2}.get(case.name, 1) for case in CASES}


def test_workers_that_cannot_load_end_the_run(tmp_path: Path) -> None:
    for cause, sentence in (
        ("no bundle.", "no bundle."),
        ("killed", "workers end while they load"),
    ):
        pool = workers(tmp_path, 1, cannot_load=cause)
        with pytest.raises(DataError, match=sentence):
            list(pool.segment(CASES))
        pool.close()
    assert not list(tmp_path.iterdir())
