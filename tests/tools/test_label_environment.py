from __future__ import annotations

from pathlib import Path

import label_environment
from environment import REPOSITORY


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
