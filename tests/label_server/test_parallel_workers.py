"""Requests of parallel workers keep their own support.

The HTTP door of MONAI Label 0.8.5 takes one request after the other; its batches run the task in
threads. So this test calls the task itself from threads, each request with another support.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import NAMES, Study, write_studies
from slicer import read_mask

from environment import REPOSITORY

WORKERS = 4
Outcome = tuple[list[str], np.ndarray]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    return write_studies(tmp_path_factory.mktemp("parallel"), ("RAS", "LPS", "LAS", "PIR"))


@pytest.fixture(scope="module")
def ask() -> Callable[[tuple[Study, Study]], Outcome]:
    """Return a function that asks the stock task for a mask: the support's ids and the mask."""
    from monailabel.tasks.infer.bundle import BundleInferTask

    task = BundleInferTask(str(REPOSITORY / "bundles" / "ssl_alpnet"), {})

    def asked(request: tuple[Study, Study]) -> Outcome:
        query, support = request
        named: dict[str, Any] = {
            "id": support.id,
            "image": str(support.image),
            "label": str(support.label),
            "names": {str(value): name for value, name in NAMES.items()},
        }
        written, params = task({"image": str(query.image), "device": "cpu", "support": [named]})
        mask, _ = read_mask(Path(written))
        mask = mask.copy()
        Path(written).unlink()
        return params["support"]["scans"], mask

    return asked


def test_every_worker_has_its_own_support(
    studies: list[Study], ask: Callable[[tuple[Study, Study]], Outcome]
):
    first, second, *queries = studies
    wanted = [(query, support) for query in queries for support in (first, second)]
    alone = {(query.id, support.id): ask((query, support))[1] for query, support in wanted}
    assert not np.array_equal(*(alone[queries[0].id, s.id] for s in (first, second)))
    with ThreadPoolExecutor(WORKERS) as pool:
        together = list(pool.map(ask, wanted))
    for (query, support), (scans, mask) in zip(wanted, together, strict=True):
        assert scans == [support.id]
        assert np.array_equal(mask, alone[query.id, support.id])
