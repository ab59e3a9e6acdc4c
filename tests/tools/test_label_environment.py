from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

import label_environment
from environment import REPOSITORY, SetupError

# torchvision as pip installs it beside a torch for the CPU: it describes what nobody declared
TORCHVISION = """
import torch
if "nms" not in torch.declared:
    raise RuntimeError("operator torchvision::nms does not exist")
"""
TORCH = """
declared = []
class library:
    class Library:
        def __init__(self, namespace, kind):
            assert (namespace, kind) == ("torchvision", "DEF")
        def define(self, schema):
            declared.append(schema.partition("(")[0])
"""


def _pins(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if "==" in line and line[0] != "#")
    return dict(line.split("==") for line in lines)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return the Python of an empty environment in which torchvision fails."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    (packages / "torch.py").write_text(TORCH)
    (packages / "torchvision.py").write_text(TORCHVISION)
    return folder / (
        "Scripts/python.exe" if sysconfig.get_platform()[:3] == "win" else "bin/python"
    )


def _prepared(monkeypatch: pytest.MonkeyPatch, python: Path) -> Path:
    monkeypatch.setattr(label_environment, "prepare", lambda **_: python)
    return label_environment.prepare_label()


def test_pins_differ_only_where_monai_label_needs_it():
    label = _pins(label_environment.REQUIREMENTS)
    own = _pins(REPOSITORY / "requirements.txt")
    assert {name for name in label.keys() & own.keys() if label[name] != own[name]} == {
        "numpy",
        "pydicom",
    }
    tests = (REPOSITORY / "pyproject.toml").read_text()
    assert all(f'"{name}=={label[name]}"' in tests for name in ("pytest", "pytest-xdist"))


def test_missing_operators_are_declared(python: Path, monkeypatch: pytest.MonkeyPatch):
    assert label_environment.MISSING_OPERATORS in label_environment._import_problem(python)
    assert _prepared(monkeypatch, python) == python
    assert label_environment._import_problem(python) == ""
    code = "import sys; print([name for name in sys.modules if name.startswith('torch')])"
    asked = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "['torchvision_operators']"  # torch itself is not imported


def test_another_problem_is_told(python: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(label_environment, "_import_problem", lambda _: "libc is too old")
    with pytest.raises(SetupError, match="torchvision cannot be imported.*libc is too old"):
        _prepared(monkeypatch, python)
