from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fsmis_components.evaluation import Ep1Row, format_table, mean_over_folds, write_rows


def row(fold: int, case: str, structure: str, ep1: float, blind: float = float("nan")) -> Ep1Row:
    return Ep1Row(fold, case, "9", structure, 1, ep1, 50.0, blind)


ROWS = [
    row(0, "1", "liver", 80.0),
    row(0, "2", "liver", 60.0),
    row(1, "3", "liver", 90.0),
    row(0, "1", "spleen", float("nan")),
    row(1, "3", "spleen", 40.0, 30.0),
]


def test_scans_are_averaged_within_folds_first() -> None:
    table = mean_over_folds(ROWS)
    assert table["liver"]["ep1"] == pytest.approx((70 + 90) / 2)
    assert table["spleen"]["ep1"] == 40  # a case without the structure is left out
    assert table["mean"]["ep1"] == 60
    assert np.isnan(table["liver"]["whole_volume"])
    assert table["mean"]["whole_volume"] == 30


def test_text() -> None:
    lines = format_table(mean_over_folds(ROWS)).splitlines()
    assert lines[1].split() == ["liver", "80.00", "50.00", "-"]
    assert len({len(line) for line in lines}) == 1


def test_csv(tmp_path: Path) -> None:
    path = write_rows(ROWS, tmp_path / "new" / "ep1.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["ep1"] == "80.000" and rows[0]["whole_volume"] == ""
    assert [r["structure"] for r in rows].count("liver") == 3
