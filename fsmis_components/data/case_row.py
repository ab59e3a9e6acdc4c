"""What a folder run knows of one scan: its line of the table, and where its results lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DONE = "done"
FAILED = "failed"


class ResultFiles(NamedTuple):
    """Where the results of a scan lie; the mask comes last and so says that they are complete."""

    overlay: Path
    scan_sheet: Path  # all slices
    mask_sheet: Path  # and their masks
    uncertainty: Path | None  # None where it is not asked for
    dicom_seg: Path | None  # None where it is not asked for, or the scan is no DICOM series
    mask: Path


@dataclass
class CaseRow:
    """One line of `cases.csv`."""

    case: str  # file name of the scan without its ending
    status: str  # "done" or "failed"
    seconds: float  # wall-clock time
    # millilitres per structure, keyed by column; empty for a failed case
    volumes: dict[str, float] = field(default_factory=dict)
    message: str = ""  # why it failed
    # per structure in [0, 1], keyed by column; empty where nothing is expected
    expected_dice: dict[str, float] = field(default_factory=dict)
    warning: str = ""  # why the result should not be trusted, a sentence each
    modality: str = ""  # as what the intensities were taken, "mr" or "ct"; empty for a failed case
    slices: int = 0  # of which the scan's sheets were made, not in the table; 0: there are none
