"""What a folder run has finished: a table for people and a record that lets it resume."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text, remove_unfinished
from fsmis_components.data.cases import Case
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.json_text import parse_json
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.inferers.case_files import CaseFiles
from fsmis_components.support.corrections import MASKS, RECORD

logger = logging.getLogger(__name__)

DONE = "done"
FAILED = "failed"
SET_ASIDE = "set_aside"  # folder for masks that are not as they were written


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
        warning: why the result should not be trusted, a sentence each.
        modality: as what the intensities were taken, "mr" or "ct"; empty for a failed case.
    """

    case: str
    status: str
    seconds: float
    volumes: dict[str, float] = field(default_factory=dict)
    message: str = ""
    expected_dice: dict[str, float] = field(default_factory=dict)
    warning: str = ""
    modality: str = ""


class RunRecord:
    """Keeps `cases.csv` and `run.json` of an output folder up to date, case by case.

    A second run with the same settings and support keeps what is finished; one with others is
    refused, so that no mask is overwritten in silence and none is left over from other settings.
    Only a run with corrected masks may replace what an earlier one wrote, and only masks that are
    still as that run wrote them.

    The record is on disk before what it describes: the settings before the first file, the hash of
    a mask before the mask has its name. So a run that was killed at any moment is taken up, and a
    mask whose hash is not there was changed by someone else.

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
        self._scans: dict[str, str] = {}  # hash of the scan that a case was done for
        self._masks: dict[str, str] = {}  # as written; "": taken over from a person
        self._files: dict[str, str] = {}  # hash of each file of a finished case, by its name

    def open(
        self, outputs: Sequence[CaseFiles], corrected: Mapping[str, Path] | None = None
    ) -> None:
        """Take up an earlier run of the same settings, without what it left half-written.

        Args:
            outputs: the files that this run would write.
            corrected: where the run has corrected masks, all masks that it would write by the stem
                of their scan, without the corrected ones.

        Raises:
            DataError: the folder holds the results of another run or files of unknown origin, its
                record is damaged, or it cannot be written.
        """
        paths = [path for files in outputs for path in files.paths]
        earlier = self._read()
        masks = dict(earlier.get(MASKS, {}))
        if earlier.get("run_hash") == self.run_hash:
            self._scans = earlier["cases"]
            self._files = earlier.get("files", {})
            self.rows = {name: CaseRow(**row) for name, row in earlier["rows"].items()}
        elif corrected is not None and MASKS in earlier:
            self._check_unchanged(corrected, masks)
        else:
            self._check_empty(paths, earlier)
        # also those that are still to be replaced: they must not pass for corrected ones
        self._masks = masks
        own = (self.output_dir / name for name in ("cases.csv", RECORD, "report.html"))
        remove_unfinished([*paths, *own])
        self._write_record()

    def finished(self, case: Case, files: CaseFiles) -> bool:
        """Whether the case was done by this run's settings, and its scan and files are the same.

        A mask that a person has changed since counts, a damaged one does not: a file that is no
        label map of the scan's grid.
        """
        row = self.rows.get(case.stem)
        if row is None or row.status != DONE or not case.image.exists() or not files.mask.exists():
            return False
        if self._scans.get(case.stem) != file_hash(case.image):
            return False
        if not self._as_written(case.stem, files.mask):
            if _damaged(files.mask, case.image):
                return False
            logger.warning("%s: was changed after it was written, so it is kept.", files.mask)
            return True
        return all(
            path.exists() and self._files.get(self._name(path)) == file_hash(path)
            for path in files.paths
        )

    def claim(self, case: Case, files: CaseFiles, mask: Path) -> None:
        """Note the mask that a case is about to get, and make room for it.

        Args:
            case: the scan.
            files: where its results go. A mask that no run wrote is set aside, not overwritten.
            mask: the new one under its hidden name.

        Raises:
            DataError: the record cannot be written.
        """
        self._clear(case.stem, files.mask)
        self._masks[case.stem] = file_hash(mask)
        self._write_record()

    def discard(self, case: Case, files: CaseFiles, scan: str) -> None:
        """Remove what shows a former scan of this name; what no run wrote is set aside.

        Args:
            case: the scan.
            files: what there is of it.
            scan: hash of the scan as it is now.
        """
        if self._scans.get(case.stem, scan) == scan:
            return
        for path in (files.overlay, files.uncertainty):
            if path is not None:
                path.unlink(missing_ok=True)
        self._clear(case.stem, files.mask)
        for known in (self._scans, self._masks):
            known.pop(case.stem, None)

    def add(self, case: Case, row: CaseRow, files: CaseFiles, scan: str, own: bool = True) -> None:
        """Record a case and rewrite both files.

        Args:
            case: the scan.
            row: its line.
            files: where its results are.
            scan: hash of the scan, taken before it was read.
            own: whether this run made the mask; otherwise a person did.
        """
        self.rows[case.stem] = row
        if row.status == DONE:
            self._scans[case.stem] = scan
            self._files.update({self._name(path): file_hash(path) for path in files.paths})
            self._masks[case.stem] = self._files[self._name(files.mask)] if own else ""
        self.write()

    def write(self) -> None:
        """Rewrite `cases.csv` and `run.json`; an interruption leaves the former files.

        Raises:
            DataError: they cannot be written.
        """
        figures = [f"{column}_ml" for column in self.columns]
        figures += [f"{column}_expected_dice" for column in self.columns]
        lines = [["case", "status", "seconds", *figures, "modality", "warning", "message"]]
        for row in self.rows.values():
            figures = [*_texts(row.volumes, self.columns), *_texts(row.expected_dice, self.columns)]
            seconds = f"{row.seconds:.2f}"
            remarks = [row.modality, row.warning, row.message]
            lines.append([row.case, row.status, seconds, *figures, *remarks])
        # the record first: it decides what counts
        self._write_record()
        self._write_text("cases.csv", csv_table(lines))

    def _write_record(self) -> None:
        record = {
            "run_hash": self.run_hash,
            "settings": self.settings,
            "cases": self._scans,
            MASKS: self._masks,
            "files": self._files,
            "rows": {name: vars(row) for name, row in self.rows.items()},
        }
        self._write_text(RECORD, json.dumps(record, indent=2) + "\n")

    def _write_text(self, name: str, text: str) -> None:
        with writing(self.output_dir / name):
            atomic_write_text(self.output_dir / name, text)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.output_dir).as_posix()

    def _as_written(self, stem: str, mask: Path) -> bool:
        return file_hash(mask) in (self._masks.get(stem), self._files.get(self._name(mask)))

    def _clear(self, stem: str, mask: Path) -> None:
        if not mask.exists():
            return
        if self._as_written(stem, mask):
            mask.unlink()
            return
        kept = mask.parent / SET_ASIDE / mask.name
        number = 1
        while kept.exists():
            number += 1
            kept = mask.parent / SET_ASIDE / f"{number}_{mask.name}"
        kept.parent.mkdir(exist_ok=True)
        mask.rename(kept)
        logger.warning("%s: is not as it was written; it is now %s.", mask, kept)

    def _check_unchanged(self, masks: Mapping[str, Path], written: Mapping[str, str]) -> None:
        for stem, mask in masks.items():
            if mask.exists() and file_hash(mask) != written.get(stem):
                raise DataError(
                    f"{mask}: is not as the former run wrote it, and no corrected mask either; "
                    "put it into the folder of --corrections_dir or remove it (nothing was "
                    "overwritten)."
                )

    def _check_empty(self, outputs: Sequence[Path], earlier: Mapping[str, Any]) -> None:
        former = (self.output_dir / name for name in earlier.get("files", {}))
        taken = next((path for path in (*outputs, *former) if path.exists()), None)
        if taken is None:
            return
        if not earlier:
            raise DataError(
                f"{taken}: is there already, and no {RECORD} says which run wrote it; choose "
                "another --output_dir (nothing was overwritten)."
            )
        there = earlier["settings"]
        changed = [
            key
            for key in sorted({*there, *self.settings})
            if there.get(key) != self.settings.get(key)
        ]
        raise DataError(
            f"{taken}: already holds the result of a run with another support or other settings "
            f"(they differ in: {', '.join(changed)}); choose another --output_dir (nothing was "
            "overwritten)."
        )

    def _read(self) -> dict[str, Any]:
        """The record of an earlier run; empty where there is none."""
        path = self.output_dir / RECORD
        try:
            record = parse_json(path.read_text(encoding="utf-8"))
            for row in record["rows"].values():
                CaseRow(**row)
            complete = all(isinstance(record[key], dict) for key in ("settings", "cases"))
            complete = complete and isinstance(record["run_hash"], str)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); choose another --output_dir."
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unusable("is damaged or no record of a folder run") from error
        if not complete:
            raise self._unusable("is no record of a folder run")
        return dict(record)

    def _unusable(self, what: str) -> DataError:
        return DataError(
            f"{self.output_dir / RECORD}: {what}, so nobody knows what wrote the masks beside it; "
            "choose another --output_dir, or move this file away if no mask is there (nothing was "
            "overwritten)."
        )


def _damaged(mask: Path, scan: Path) -> bool:
    """Whether a mask is no label map of its scan's grid; False where the scan is not readable."""
    try:
        image = load_image(scan)
    except DataError:
        return False
    try:
        load_label(mask, image)
    except DataError:
        return True
    return False


def _texts(figures: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{figures[column]:.3f}" if column in figures else "" for column in columns]
