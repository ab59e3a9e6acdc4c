"""The tables that a folder run writes, for tests to look into."""

from __future__ import annotations

import csv
from pathlib import Path


def read_cases(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))
