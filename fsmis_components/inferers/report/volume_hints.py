"""Hints from volumes and expected Dice: which result of a folder to look at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from fsmis_components.inferers.report.wording import in_ml
from fsmis_components.inferers.run_record import DONE, CaseRow

FEWEST = 5  # scans in which a structure was found; a median of fewer says little
# modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993)
_FAR = 3.5
_OF_NORMAL = 0.6745  # median absolute deviation of a standard normal distribution
_LEAST_EXPECTED = 0.6  # Dice below which a mask wants a look
_LEAST_SPREAD = 0.1  # in the logarithm: within a folder volumes differ by a tenth anyway


@dataclass(frozen=True)
class VolumeSummary:
    """Volumes of one structure over the finished scans of a folder.

    Attributes:
        found: millilitres where the structure was found, ascending.
        missing: number of scans where it was not.
    """

    found: tuple[float, ...]
    missing: int

    @property
    def median(self) -> float:
        """Median of what was found; NaN where nothing was."""
        return median(self.found) if self.found else math.nan

    def is_far(self, volume: float) -> bool:
        """Whether a volume lies far from the median, by its ratio to it.

        Ratios, not differences: half as large is as far as twice as large. Fewer than five scans
        with the structure make no outlier.
        """
        if len(self.found) < FEWEST or volume <= 0:
            return False
        logarithms = [math.log(value) for value in self.found]
        centre = median(logarithms)
        deviation = median([abs(value - centre) for value in logarithms]) / _OF_NORMAL
        return abs(math.log(volume) - centre) > _FAR * max(deviation, _LEAST_SPREAD)


def summarise_volumes(rows: Sequence[CaseRow], columns: Sequence[str]) -> dict[str, VolumeSummary]:
    """The volumes of each structure.

    Args:
        rows: finished and failed scans; failed ones count for nothing.
        columns: structure columns.
    """
    summaries = {}
    for column in columns:
        volumes = [row.volumes[column] for row in rows if row.status == DONE]
        found = sorted(volume for volume in volumes if volume > 0)
        summaries[column] = VolumeSummary(tuple(found), len(volumes) - len(found))
    return summaries


def volume_hints(row: CaseRow, summaries: dict[str, VolumeSummary]) -> dict[str, str]:
    """What is unusual about a finished scan, by structure column; empty where nothing is.

    Args:
        row: the scan.
        summaries: of the folder.
    """
    hints = {}
    for column, summary in summaries.items():
        volume = row.volumes.get(column)
        if volume is None:
            continue
        if volume <= 0:
            hints[column] = "not found"
        elif row.expected_dice.get(column, 1.0) < _LEAST_EXPECTED:
            hints[column] = f"expected Dice {100 * row.expected_dice[column]:.0f} %"
        elif summary.is_far(volume):
            hints[column] = (
                f"{volume / summary.median:.2g} times the median of {in_ml(summary.median)} ml"
            )
    return hints
