from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from environment import REPOSITORY


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("test_tool", REPOSITORY / "tools" / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("failing", [None, "ruff", "pytest", "mkdocs"])
def test_any_failure_fails_the_whole(
    tool: ModuleType, failing: str | None, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def run(python: object, command: list[str], **variables: str) -> int:
        seen.append(variables["OMP_NUM_THREADS"])
        return int(failing in command)

    monkeypatch.setattr(tool.sys, "argv", ["test.py"])
    monkeypatch.setattr(tool, "prepare", lambda extra: extra)
    monkeypatch.setattr(tool, "run", run)
    assert tool.main() == int(failing is not None)
    assert len(seen) >= 5, "a failing step does not stop the ones after it"
    assert set(seen) == {"1"}


def test_ci_runs_the_readmes_commands():
    ci = REPOSITORY / ".ci" / "run"
    commands = re.findall(r"^python .*(?<!&)$", ci.read_text(), re.MULTILINE)
    assert commands == ["python tools/test.py", "python tools/test_label_server.py"]
    assert commands[0] in (REPOSITORY / "README.md").read_text().splitlines()
    assert ci.stat().st_mode & 0o111
