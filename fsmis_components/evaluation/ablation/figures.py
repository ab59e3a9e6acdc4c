"""From the records of finished folds to figures by variant, seed, fold, case and structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fsmis_components.data.csv_table import csv_table
from fsmis_components.evaluation.ablation.folder import FinishedFold
from fsmis_components.evaluation.records import ORACLE, UNDEFINED, WHOLE_VOLUME, CaseRecord
from fsmis_components.evaluation.rules import RULES

EP1 = RULES["ep1-alp"].name
PROTOCOLS = (EP1, ORACLE, WHOLE_VOLUME)


class Key(NamedTuple):
    """What one figure belongs to."""

    seed: int
    fold: int
    case: str
    structure: str


@dataclass(frozen=True)
class Figures:
    """Figures of one structure of one case under one protocol.

    Attributes:
        dice: percent.
        hd95_mm: as in the benchmark; where `penalised` the diagonal of the volume.
        penalised: only one of prediction and label is empty, so no distance exists.
    """

    dice: float
    hd95_mm: float
    penalised: bool


# by variant and protocol; a structure that EP1 cannot score is None
Table = dict[tuple[str, str], dict[Key, Figures | None]]


def collect(records: Sequence[CaseRecord], finished: Sequence[FinishedFold]) -> Table:
    """Sort the figures of finished folds.

    Args:
        records: of the benchmark, where the title of a piece is the name of the method.
        finished: folds that count; records of others are left out.
    """
    pieces = {(fold.piece.title, fold.fold): fold for fold in finished}
    table: Table = defaultdict(dict)
    for record in records:
        for row, counts in zip(record.rows, record.counts, strict=True):
            fold = pieces.get((row.method, row.fold))
            if fold is None or row.case not in fold.cases:
                continue
            figures = None
            if row.status != UNDEFINED:
                one_is_empty = (sum(counts.predicted) == 0) != (sum(counts.labelled) == 0)
                figures = Figures(row.dice, row.hd95_mm, one_is_empty)
            key = Key(fold.seed, row.fold, row.case, row.structure)
            table[fold.variant, row.protocol][key] = figures
    return dict(table)


def write_cases(table: Table, finished: Iterable[FinishedFold]) -> str:
    """The figures as CSV: a line per variant, seed, fold and case, mean over structures.

    Args:
        table: from `collect`.
        finished: the folds, in the order of the lines.

    Returns:
        The text. Per protocol: structures that were scored, their mean Dice and HD95, how many of
        them are penalised; empty fields where none was scored.
    """
    titles = [
        f"{name}_{figure}"
        for name in ("ep1", "oracle", "wv")
        for figure in ("structures", "dice", "hd95_mm", "penalised")
    ]
    lines: list[list[object]] = [["variant", "seed", "fold", "case", "parameters", *titles]]
    for fold in finished:
        for case in fold.cases:
            cells: list[object] = []
            for protocol in PROTOCOLS:
                own = table.get((fold.variant, protocol), {})
                cells += _mean_cells(own, fold, case)
            lines.append([fold.variant, fold.seed, fold.fold, case, fold.parameters, *cells])
    return csv_table(lines)


def _mean_cells(own: Mapping[Key, Figures | None], fold: FinishedFold, case: str) -> list[object]:
    place = (fold.seed, fold.fold, case)
    found = [figures for key, figures in own.items() if key[:3] == place and figures is not None]
    if not found:
        return [0, "", "", ""]
    dice, hd95 = (
        f"{np.mean([getattr(figures, name) for figures in found]):.4f}"
        for name in ("dice", "hd95_mm")
    )
    return [len(found), dice, hd95, sum(figures.penalised for figures in found)]
