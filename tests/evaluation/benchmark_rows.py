"""Rows of a benchmark, as short as a test wants them."""

from __future__ import annotations

import math
from typing import Any

from fsmis_components.evaluation.records import FIGURES, SCORED, UNDEFINED, Row

VALUES = {"liver": 1, "spleen": 4}


def row(case: str, structure: str, dice: float, /, **other: Any) -> Row:
    """A row of method "a" under "wv" with the same number in all figures; NaN: undefined."""
    known = {
        **{"method": "a", "setting": "1", "fold": 0, "choice": 0, "shots": 1, "support": "9"},
        **{"labelled": "sections", "protocol": "wv", "value": VALUES[structure]},
        "status": UNDEFINED if math.isnan(dice) else SCORED,
        **dict.fromkeys(FIGURES, dice),
    }
    return Row(**{"case": case, "structure": structure, **known, **other})
