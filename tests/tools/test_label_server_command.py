from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from environment import REPOSITORY, SetupError


@pytest.fixture
def tool() -> ModuleType:
    path = REPOSITORY / "tools" / "test_label_server.py"
    spec = importlib.util.spec_from_file_location("label_server_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("status", [0, 1])
def test_tests_run_in_the_environment_of_monai_label(
    tool: ModuleType, status: int, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def run(python: str, command: list[str], **variables: str) -> int:
        seen.append((python, command, variables))
        return status

    monkeypatch.setattr(tool.sys, "argv", ["test_label_server.py", "-k", "replay"])
    monkeypatch.setattr(tool, "prepare_label", lambda: "label's python")
    monkeypatch.setattr(tool, "run", run)
    assert tool.main() == status
    ((python, command, variables),) = seen
    assert python == "label's python"
    assert command[:3] == ["-m", "pytest", "tests/label_server"]
    assert command[-2:] == ["-k", "replay"]
    assert variables == {"OMP_NUM_THREADS": "1"}


def test_set_up_that_fails_is_said(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def no_space() -> None:
        raise SetupError("The disk is full.")

    monkeypatch.setattr(tool, "prepare_label", no_space)
    assert tool.main() == 1
    assert capsys.readouterr().out == "The disk is full.\n"
