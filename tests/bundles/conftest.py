"""Tests that take ``bundle`` run for every bundle; those of all but the quickest are slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_folders import BUNDLES, REFERENCE

PARAMETERS = [
    pytest.param(path, marks=[] if path == REFERENCE else [pytest.mark.slow], id=path.name)
    for path in BUNDLES
]


@pytest.fixture(scope="session", params=PARAMETERS)
def bundle(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a bundle."""
    return request.param
