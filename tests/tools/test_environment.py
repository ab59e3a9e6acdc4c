from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import environment
import label_environment
from environment import REPOSITORY, SetupError, prepare


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine.txt").write_text("precious")
    with pytest.raises(SetupError, match="no virtual environment"):
        prepare(folder=tmp_path / ".venv")
    assert (tmp_path / ".venv" / "mine.txt").read_text() == "precious"


def test_second_run_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def create(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(environment, "_create", create)
    monkeypatch.setattr(environment, "_pip", lambda python, what: not calls.append(what))
    python = prepare("dev", folder=tmp_path / ".venv")
    assert any(str(what[-1]).endswith("[dev]") for what in calls)
    calls.clear()
    assert prepare("dev", folder=tmp_path / ".venv") == python
    assert prepare(folder=tmp_path / ".venv") == python, "dev holds all that a run needs"
    assert not calls
    monkeypatch.setattr(environment, "_fingerprint", lambda _: "requirements changed")
    prepare(folder=tmp_path / ".venv")
    assert calls


def test_cpu_torch_is_the_pinned_one():
    pinned = (REPOSITORY / "requirements.txt").read_text()
    assert environment.CPU_TORCH.removesuffix("+cpu") in pinned.splitlines()


@pytest.mark.parametrize("tool", ["quickstart", "test"])
def test_old_python_is_refused_in_one_sentence(tool: str):
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 1); sys.path.insert(0, 'tools');"
        f"runpy.run_path('tools/{tool}.py', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "needs Python 3.11 or newer" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("tool", ["quickstart", "test", "test_label_server", "label_environment"])
def test_help_answers_without_setting_anything_up(tool: str, tmp_path: Path):
    tools = tmp_path / "tools"
    shutil.copytree(REPOSITORY / "tools", tools, ignore=shutil.ignore_patterns("__pycache__"))
    ended = subprocess.run(
        [sys.executable, "-B", str(tools / f"{tool}.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"tools/{tool}.py" in ended.stdout or f"{tool}.py [-h]" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["tools"]


def _pins(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if "==" in line and line[0] != "#")
    return dict(line.split("==") for line in lines)


def test_pins_differ_only_where_monai_label_needs_it():
    label = _pins(label_environment.REQUIREMENTS)
    own = _pins(REPOSITORY / "requirements.txt")
    assert {name for name in label.keys() & own.keys() if label[name] != own[name]} == {
        "numpy",
        "pydicom",
    }
    tests = (REPOSITORY / "pyproject.toml").read_text()
    assert all(f'"{name}=={label[name]}"' in tests for name in ("pytest", "pytest-xdist"))
