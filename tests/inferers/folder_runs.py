"""Folder runs for tests: a support s, scans q and results o below one root."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_network import IntensityNetwork
from monai.data import Dataset

from fsmis_components.inferers import FolderEvaluator, VolumeInferer, query_items
from fsmis_components.support import SupportSource


def evaluator(
    root: Path,
    output: str = "o",
    *,
    support: str | SupportSource = "s",
    queries: str = "q",
    network: IntensityNetwork | None = None,
    inferer: dict[str, Any] | None = None,
    **options: Any,
) -> FolderEvaluator:
    if isinstance(support, str):
        support = SupportSource(root / support, spatial_size=24)
    inferer = inferer or {}
    # half of the time of so small a scan, and the masks are known without it
    steps = {"registration": False, **inferer.get("steps", {})}
    return FolderEvaluator(
        device="cpu",
        dataset=Dataset(query_items(root / queries)),
        network=network or IntensityNetwork(),
        inferer=VolumeInferer(support, **{**inferer, "steps": steps}),
        output_dir=root / output,
        **{"progress": False, **options},
    )


def read_cases(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sentence(action: Callable[[], object]) -> str:
    """The one sentence by which an action ends."""
    with pytest.raises(SystemExit) as raised:
        action()
    assert "\n" not in str(raised.value.code)
    return str(raised.value.code)
