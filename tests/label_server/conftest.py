"""Real MONAI Label servers for the tests of this folder; other environments skip them.

Two serve all tests of a process, as a start costs more than most of them: one our own app, which
the fixtures here lead through a session, one MONAI Label's (`test_replay.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from made_up_studies import Study, write_studies
from own_app_session import APP, MODEL, NAMES, OTHER_NAMES, OwnApp
from server_process import LabelServer
from slicer import Slicer

_running: list[LabelServer] = []


@pytest.fixture(scope="session")
def start_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., LabelServer]]:
    """Return a function that starts a server and ends it when the tests are over."""

    def start(app: str | Path, studies: Path, models: list[str], **conf: str) -> LabelServer:
        folder = tmp_path_factory.mktemp("server")
        server = LabelServer(folder, app, studies, models, **conf)
        _running.append(server)
        return server

    yield start
    while _running:
        _running.pop().stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator:
    """Show what the servers wrote last where a test failed."""
    report = yield
    if report.failed:
        for server in _running:
            report.sections.append((f"log of {server.app_dir.parent.name}", server.log_tail()))
    return report


@pytest.fixture(scope="session")
def own_app(
    start_server: Callable[..., LabelServer], tmp_path_factory: pytest.TempPathFactory
) -> OwnApp:
    """Return a server on six scans without labels and two files that cannot be used."""
    folder = tmp_path_factory.mktemp("own_app")
    studies = write_studies(folder, {1: 1, 2: 2}, count=7)
    (folder / "uploads").mkdir()
    uploaded = shutil.move(studies[-1].image, folder / "uploads")
    studies[-1] = Study(studies[-1].id, Path(uploaded), studies[-1].label)
    (folder / "studies" / "broken.nii.gz").write_bytes(b"no scan")
    one = nibabel.Nifti1Image(np.ones((20, 20, 1), np.uint8), np.eye(4))
    nibabel.save(one, folder / "studies" / "slice.nii.gz")
    server = start_server(APP, folder / "studies", [MODEL])
    return OwnApp(server, Slicer(server, MODEL), studies, folder / "uploads")


@pytest.fixture(scope="session")
def unlabelled(own_app: OwnApp) -> dict[str, Any]:
    """Return what the server answers before anything is labelled."""
    import requests  # comes with MONAI Label

    train = f"{own_app.server.url}/train/{MODEL}?run_sync=true"
    encoded = own_app.server.studies / ".few_shot" / "encoded"
    return {
        "info": own_app.slicer.client.info(),
        "answer": own_app.slicer.run("scan_2"),
        "proposed": own_app.slicer.next_sample("few_shot"),
        "encoded": {path: path.stat().st_mtime_ns for path in encoded.iterdir()},
        "then": own_app.slicer.next_sample("few_shot"),
        "training": requests.post(train, json={"minutes": 0}, timeout=60),
    }


@pytest.fixture(scope="session")
def labelled(own_app: OwnApp, unlabelled: dict[str, Any]) -> OwnApp:
    """Return the server after scan_1 was labelled: two structures, one empty segment beside."""
    own_app.slicer.submit("scan_1", own_app.studies[0].label, NAMES)
    return own_app


@pytest.fixture(scope="session")
def corrected(labelled: OwnApp, tmp_path_factory: pytest.TempPathFactory) -> OwnApp:
    """Return the server after scan_3 was labelled too, with other values for the names."""
    path = tmp_path_factory.mktemp("corrected") / "label_3.nii.gz"
    labelled.slicer.submit(
        "scan_3", labelled.studies[2].relabelled({1: 2, 2: 1}, path), OTHER_NAMES
    )
    return labelled
