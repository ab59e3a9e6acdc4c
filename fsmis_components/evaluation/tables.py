"""Tables of an evaluation: rows to a CSV file, means to a few printed lines."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from fsmis_components.evaluation.ep1 import Ep1Row

FIGURES = ("ep1", "mask_copy", "whole_volume")


def mean_over_folds(rows: Sequence[Ep1Row]) -> dict[str, dict[str, float]]:
    """Mean Dice per structure, and over structures under "mean".

    Scans are averaged within a fold and folds are averaged then, as in the papers; cases without a
    structure are left out of its mean.

    Returns:
        Structure name to figure name to percent.
    """
    names = list(dict.fromkeys(row.structure for row in rows))
    folds = list(dict.fromkeys(row.fold for row in rows))
    table: dict[str, dict[str, float]] = {}
    for name in names:
        own = [row for row in rows if row.structure == name]
        table[name] = {
            figure: _mean(
                [_mean([getattr(row, figure) for row in own if row.fold == f]) for f in folds]
            )
            for figure in FIGURES
        }
    table["mean"] = {figure: _mean([table[name][figure] for name in names]) for figure in FIGURES}
    return table


def format_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """A table of `mean_over_folds` as aligned text."""
    width = max(len("structure"), *(len(name) for name in table))
    lines = [f"{'structure':<{width}}  EP1 Dice  mask copy  whole volume"]
    for name, row in table.items():
        cells = [f"{row[f]:.2f}" if np.isfinite(row[f]) else "-" for f in FIGURES]
        lines.append(f"{name:<{width}}  {cells[0]:>8}  {cells[1]:>9}  {cells[2]:>12}")
    return "\n".join(lines)


def write_rows(rows: Sequence[Ep1Row], path: str | Path) -> Path:
    """Write the rows as CSV; an interrupted write leaves the former file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Ep1Row)])
        writer.writeheader()
        for row in rows:
            entry = asdict(row)
            for figure in FIGURES:
                entry[figure] = f"{entry[figure]:.3f}" if np.isfinite(entry[figure]) else ""
            writer.writerow(entry)
    os.replace(temporary, path)
    return path


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
