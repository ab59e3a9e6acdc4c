"""The report of a folder run, `report.html`: what was found, how large, and where to look first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from PIL import Image

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.run_record import DONE, FAILED, CaseRow
from fsmis_components.reporting.drawing import MOST_SLICES, SHEET_COLUMNS
from fsmis_components.reporting.pages import in_ml, percent, render
from fsmis_components.support.support_pack import SupportPack

FEWEST = 5  # scans in which a structure was found; a median of fewer says little
# modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993)
_FAR = 3.5
_OF_NORMAL = 0.6745  # median absolute deviation of a standard normal distribution
_LEAST_EXPECTED = 0.6  # Dice below which a mask wants a look
_LEAST_SPREAD = 0.1  # in the logarithm: within a folder volumes differ by a tenth anyway
_SHOWN_OF_HASH = 12  # characters
_IN_MEMORY = "a support pack in memory"


def write_folder_report(
    folder: Path,
    rows: Sequence[CaseRow],
    pack: SupportPack,
    settings: Mapping[str, Any],
    unused: Sequence[tuple[str, str]],
) -> Path:
    """Write `report.html` into the folder of a run, beside `overlays/`, whole or not at all.

    The rows are one per scan, also of earlier runs that this one took up; the settings those of
    `RunRecord`. The scans that failed come first, then those with a remark, then the others; within
    these, those of which the least Dice is expected.
    """
    summaries = {each.column: _Volumes.of(rows, each.column) for each in pack.structures}
    hints = {row.case: _hints(row, summaries) for row in rows}
    names = {structure.column: structure.name for structure in pack.structures}
    remarks = {}
    for row in rows:
        unusual = [f"{names[column]}: {hint}" for column, hint in hints[row.case].items()]
        remarks[row.case] = ". ".join(filter(None, ["; ".join(unusual), row.warning, row.message]))
    expected = {row.case: fmean(row.expected_dice.values()) for row in rows if row.expected_dice}
    rows = sorted(rows, key=lambda r: (not remarks[r.case], expected.get(r.case, math.inf)))
    done = [row for row in rows if row.status == DONE]
    page = render(
        "folder.html",
        title="Segmented scans",
        method=pack.method,
        support=pack.source or _IN_MEMORY,
        structures=pack.structures,
        tests=None if pack.calibration is None else pack.calibration.tests,
        summaries=summaries,
        fewest=FEWEST,
        failed=[row for row in rows if row.status == FAILED],
        done=done,
        hints=hints,
        remarks=remarks,
        expected=expected,
        pictures={r.case: _size(folder / "overlays" / f"{r.case}.png") for r in done},
        sheets=[
            row.case
            for row in done
            if row.slices
            and (folder / "overlays" / "scans" / f"{row.case}.jpg").is_file()
            and (folder / "overlays" / "masks" / f"{row.case}.png").is_file()
        ],
        most_slices=MOST_SLICES,
        sheet_columns=SHEET_COLUMNS,
        unused=unused,
        how=_facts(pack, settings),
    )
    return atomic_write_text(folder / "report.html", page)


class _Volumes(NamedTuple):
    """Volumes of one structure over the finished scans of a folder."""

    found: list[float]  # millilitres where the structure was found, ascending
    missing: int  # number of scans where it was not

    @classmethod
    def of(cls, rows: Sequence[CaseRow], column: str) -> _Volumes:
        """Those of a structure; failed scans count for nothing."""
        volumes = [row.volumes[column] for row in rows if row.status == DONE]
        found = sorted(volume for volume in volumes if volume > 0)
        return cls(found, len(volumes) - len(found))

    @property
    def median(self) -> float:
        """Median of what was found; NaN where nothing was."""
        return median(self.found) if self.found else math.nan

    def is_far(self, volume: float) -> bool:
        """Whether a volume lies far from the median, by its ratio to it.

        Ratios, not differences: half as large is as far as twice as large. Fewer than five scans
        with the structure make no outlier.
        """
        if len(self.found) < FEWEST:
            return False
        logarithms = [math.log(value) for value in self.found]
        centre = median(logarithms)
        deviation = median([abs(value - centre) for value in logarithms]) / _OF_NORMAL
        return abs(math.log(volume) - centre) > _FAR * max(deviation, _LEAST_SPREAD)


def _hints(row: CaseRow, summaries: Mapping[str, _Volumes]) -> dict[str, str]:
    """What is unusual about a finished scan, by structure column; empty where nothing is."""
    hints = {}
    for column, summary in summaries.items():
        volume = row.volumes.get(column)
        if volume is None:
            continue
        if volume <= 0:
            hints[column] = "not found"
        elif row.expected_dice.get(column, 1.0) < _LEAST_EXPECTED:
            hints[column] = f"expected Dice {percent(row.expected_dice[column])}"
        elif summary.is_far(volume):
            times = f"{volume / summary.median:.2g} times"
            hints[column] = f"{times} the median of {in_ml(summary.median)} ml"
    return hints


def _size(picture: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None where there is none."""
    if not picture.is_file():
        return None
    with Image.open(picture) as opened:
        return opened.size


def _facts(pack: SupportPack, settings: Mapping[str, Any]) -> dict[str, Any]:
    slices = pack.sections.any(-1).sum(-1).tolist()
    names = [structure.name for structure in pack.structures]
    return {
        "method": pack.method,
        "support": pack.source or _IN_MEMORY,
        "labelled slices": {name: int(count) for name, count in zip(names, slices, strict=True)},
        "SHA-256 of the weights, beginning": pack.weights_hash[:_SHOWN_OF_HASH],
        "SHA-256 of the support, beginning": str(settings["support"])[:_SHOWN_OF_HASH],
        "network": pack.settings,
        "slices": pack.grid.to_dict(),
        "intensities taken as": pack.normalisation.describe(),
        "intensities": pack.normalisation.to_dict(),
        "inference": settings["inferer"],
        "version of fsmis_components": settings["version"],
        "written": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
