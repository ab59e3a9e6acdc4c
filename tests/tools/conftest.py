"""What the tests of several tools share."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_bundle import write_toy


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Return a bundle that passes every check."""
    return write_toy(tmp_path / "bundles" / "toy")
