"""Tests that take ``bundle`` run for every bundle of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_folders import BUNDLES


@pytest.fixture(scope="session", params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a bundle."""
    return request.param
