"""What all tests share: one thread, the real volumes where they are, phantoms, a count of skips."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: workers share the cores

import pytest
import torch

from phantom import write_dataset, write_phantom


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the tests of tensors")


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def fsmis_data_dir() -> Path:
    """Return the folder of real volumes; without one the test is skipped."""
    folder = os.environ.get("FSMIS_DATA_DIR")
    if not folder:
        pytest.skip("FSMIS_DATA_DIR is not set: no real volumes")
    if not Path(folder).is_dir():
        pytest.fail(f"FSMIS_DATA_DIR names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture
def blank_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder runs of this test draw nothing."""
    from folder_results import blank_overlay

    from fsmis_components.inferers import folder_evaluator

    monkeypatch.setattr(folder_evaluator, "save_overlay", blank_overlay)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with support/ (labelled), query/ (not) and scoring/ (the query, labelled)."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, seed=1, shape=(96, 80, 12))
    return folder


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four small labelled subjects, image_1 to image_4."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), count=4, seed=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was not tested here, and why."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(
            f"not tested here: {count} x {reason.removeprefix('Skipped: ')}"
        )
