"""Real MONAI Label servers for the tests of this folder; other environments skip them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_process import LabelServer

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
