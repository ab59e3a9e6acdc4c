"""What a folder run has finished: a table for people and a record that lets it resume."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text, remove_unfinished
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.volume_names import volume_parts
from fsmis_components.support.corrections import MASKS, RECORD

DONE = "done"
FAILED = "failed"


@dataclass
class CaseRow:
    """One line of `cases.csv`.

    Args:
        case: file name of the scan without its ending.
        status: "done" or "failed".
        seconds: wall-clock time.
        volumes: millilitres per structure, keyed by column; empty for a failed case.
        message: why it failed.
        expected_dice: per structure in [0, 1], keyed by column; empty where nothing is expected.
        warning: why the result should not be trusted, in one sentence.
    """

    case: str
    status: str
    seconds: float
    volumes: dict[str, float] = field(default_factory=dict)
    message: str = ""
    expected_dice: dict[str, float] = field(default_factory=dict)
    warning: str = ""


class RunRecord:
    """Keeps `cases.csv` and `run.json` of an output folder up to date, case by case.

    A second run with the same settings and support keeps what is finished; one with others is
    refused, so that no mask is overwritten in silence and none is left over from other settings.
    Only a run with corrected masks may replace what an earlier one wrote, and only masks that are
    still as that run wrote them.

    Args:
        output_dir: where masks go.
        columns: structure columns, in order.
        settings: everything that changes a mask, as JSON values.
    """

    def __init__(
        self, output_dir: str | Path, columns: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.output_dir = Path(output_dir)
        self.columns = list(columns)
        self.settings = json.loads(json.dumps(settings, sort_keys=True))
        text = json.dumps(self.settings, sort_keys=True)
        self.run_hash = hashlib.sha256(text.encode()).hexdigest()
        self.rows: dict[str, CaseRow] = {}
        self._fingerprints: dict[str, list[int]] = {}
        self._masks: dict[str, str] = {}  # as written; "": taken over from a person

    def open(self, outputs: Sequence[Path], corrected: Mapping[str, Path] | None = None) -> None:
        """Take up an earlier run of the same settings, without what it left half-written.

        Args:
            outputs: the files that this run would write.
            corrected: where the run has corrected masks, all masks that it would write by the stem
                of their scan, without the corrected ones.

        Raises:
            DataError: the folder holds the results of another run, or cannot be written.
        """
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.output_dir, error) from error
        earlier = self._read()
        if earlier.get("run_hash") == self.run_hash:
            self._fingerprints = earlier["cases"]
            self.rows = {name: CaseRow(**row) for name, row in earlier["rows"].items()}
        elif corrected is not None and MASKS in earlier:
            self._check_unchanged(corrected, earlier[MASKS])
        elif taken := next((path for path in outputs if path.exists()), None):
            raise DataError(
                f"{taken}: already holds the result of a run with another support or other "
                "settings; choose another --output_dir (nothing was overwritten)."
            )
        # also those that are still to be replaced: they must not pass for corrected ones
        self._masks = dict(earlier.get(MASKS, {}))
        own = (self.output_dir / name for name in ("cases.csv", RECORD, "report.html"))
        remove_unfinished([*outputs, *own])

    def finished(self, case: Case, outputs: Sequence[Path]) -> bool:
        """Whether the case was done by this run's settings and its scan has not changed since."""
        row = self.rows.get(case.stem)
        return (
            row is not None
            and row.status == DONE
            and case.image.exists()
            and not self.outdated(case)
            and all(path.exists() for path in outputs)
        )

    def outdated(self, case: Case) -> bool:
        """Whether the case was done for a scan of this name that has been replaced since."""
        known = self._fingerprints.get(case.stem)
        return known is not None and case.image.exists() and known != fingerprint(case.image)

    def add(self, case: Case, row: CaseRow, mask: Path | None = None) -> None:
        """Record a case and rewrite both files.

        Args:
            case: the scan.
            row: its line.
            mask: the mask that this run made; None where a person did, or where it failed.
        """
        self.rows[case.stem] = row
        if row.status == DONE and case.image.exists():
            self._fingerprints[case.stem] = fingerprint(case.image)
            self._masks[case.stem] = "" if mask is None else file_hash(mask)
        else:
            self._fingerprints.pop(case.stem, None)
            self._masks.pop(case.stem, None)
        self.write()

    def write(self) -> None:
        """Rewrite `cases.csv` and `run.json`; an interruption leaves the former files.

        Raises:
            DataError: they cannot be written.
        """
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        figures = [f"{column}_ml" for column in self.columns]
        figures += [f"{column}_expected_dice" for column in self.columns]
        writer.writerow(["case", "status", "seconds", *figures, "warning", "message"])
        for row in self.rows.values():
            figures = [*_texts(row.volumes, self.columns), *_texts(row.expected_dice, self.columns)]
            seconds = f"{row.seconds:.2f}"
            writer.writerow([row.case, row.status, seconds, *figures, row.warning, row.message])
        record = {
            "run_hash": self.run_hash,
            "settings": self.settings,
            "cases": self._fingerprints,
            MASKS: self._masks,
            "rows": {name: vars(row) for name, row in self.rows.items()},
        }
        try:
            atomic_write_text(self.output_dir / "cases.csv", lines.getvalue())
            atomic_write_text(self.output_dir / RECORD, json.dumps(record, indent=2) + "\n")
        except OSError as error:
            raise unwritable(self.output_dir, error) from error

    def _check_unchanged(self, masks: Mapping[str, Path], written: Mapping[str, str]) -> None:
        for stem, mask in masks.items():
            if mask.exists() and file_hash(mask) != written.get(stem):
                raise DataError(
                    f"{mask}: is not as the former run wrote it, and no corrected mask either; "
                    "put it into the folder of --corrections_dir or remove it (nothing was "
                    "overwritten)."
                )

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads((self.output_dir / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # no earlier run that could be taken up
        complete = isinstance(record, dict) and {"run_hash", "cases", "rows"} <= set(record)
        return record if complete else {}


def _texts(figures: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{figures[column]:.3f}" if column in figures else "" for column in columns]


def fingerprint(path: Path) -> list[int]:
    """Size and time of change of a file, or of the files that make up a volume."""
    stats = [file.stat() for file in volume_parts(path)]
    return [
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
    ]
