"""What a folder run has finished: a table for people and a record that lets it resume."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock

from fsmis_components.data.atomic import atomic_write_text, remove_unfinished
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, unreadable, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.safe_text import csv_table, parse_json
from fsmis_components.data.volumes import load_image, load_label

logger = logging.getLogger(__name__)
T = TypeVar("T")

_RECORD = "run.json"
_MASKS = "masks"  # entry of it: SHA-256 of each mask as written; "": taken over from a person
_LOCK = ".sharing"  # of the record, where several processes write it; stays, empty
_SET_ASIDE = "set_aside"  # folder for masks that are not as they were written
DONE = "done"
FAILED = "failed"


class ResultFiles(NamedTuple):
    """Where the results of a scan lie; the mask is written last: then all are there."""

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
    volumes: dict[str, float] = field(default_factory=dict)  # millilitres by column of a structure
    message: str = ""  # why it failed
    expected_dice: dict[str, float] = field(default_factory=dict)  # in [0, 1], keyed as volumes
    warning: str = ""  # why the result should not be trusted, a sentence each
    modality: str = ""  # as what the intensities were taken, "mr" or "ct"; empty for a failed case
    slices: int = 0  # of which the scan's sheets were made, not in the table; 0: there are none


class RunRecord:
    """Keeps `cases.csv` and `run.json` of an output folder up to date, case by case.

    A second run with the same settings keeps what is finished; one with others is refused, so that
    no mask is overwritten in silence. The record is on disk before what it describes: the settings
    before the first file, the hash of a mask before the mask has its name. So a run that was killed
    at any moment is taken up, and a mask whose hash is not there was changed by someone else.

    Several processes may share the cases of a run (`share`), each with a copy of the record.

    Args:
        output_dir: where masks go.
        columns: structure columns, in order.
        settings: everything that changes a mask, as JSON values.
        uncertainty: whether a case has an uncertainty map.
        dicom_seg: whether a case that is a DICOM series has its mask as DICOM SEG too.
    """

    def __init__(
        self,
        output_dir: str | Path,
        columns: Sequence[str],
        settings: Mapping[str, Any],
        uncertainty: bool = False,
        dicom_seg: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.columns = list(columns)
        text = json.dumps(settings, sort_keys=True)
        self.settings = json.loads(text)
        self.uncertainty = uncertainty
        self.dicom_seg = dicom_seg
        self.run_hash = hashlib.sha256(text.encode()).hexdigest()
        self.rows: dict[str, CaseRow] = {}
        self._scans: dict[str, str] = {}  # hash of the scan that a case was done for
        self._masks: dict[str, str] = {}
        self._files: dict[str, str] = {}  # hash of each file of a finished case, by its name
        self._order: list[str] | None = None  # of all cases, where several processes share them
        self._own: set[str] = set()  # this one's cases and their files, then

    def _paths(self, cases: Iterable[Case]) -> list[Path]:
        return [path for case in cases for path in self.files(case) if path is not None]

    def files(self, case: Case) -> ResultFiles:
        """Where the results of a case go."""
        folder, stem = self.output_dir, case.stem
        return ResultFiles(
            folder / "overlays" / f"{stem}.png",
            folder / "overlays" / "scans" / f"{stem}.jpg",
            folder / "overlays" / "masks" / f"{stem}.png",
            folder / f"{stem}_uncertainty.nii.gz" if self.uncertainty else None,
            folder / f"{stem}_seg.dcm" if self.dicom_seg and case.image.is_dir() else None,
            folder / f"{stem}_seg.nii.gz",
        )

    def open(
        self,
        cases: Iterable[Case],
        corrected: Mapping[str, Path] | None = None,
        renews: bool = False,
    ) -> None:
        """Take up an earlier run of the same settings, without what it left half-written.

        Where the run has corrected masks, these come by the stem of their scan. With them, or where
        it `renews`, masks of a run with other settings are replaced, if nobody has changed them.

        Raises:
            DataError: the folder holds the results of another run or files of unknown origin, its
                record is damaged, or it cannot be written.
        """
        corrected, cases = corrected or {}, list(cases)
        paths = self._paths(cases)
        earlier = _read(self.output_dir)
        # also those that are still to be replaced: they must not pass for corrected ones
        self._masks = dict(earlier.get(_MASKS, {}))
        if earlier.get("run_hash") == self.run_hash:
            self._scans, self.rows = earlier["cases"], earlier["rows"]
            self._files = earlier.get("files", {})
        elif (corrected or renews) and _MASKS in earlier:
            for case in cases:
                mask = self.files(case).mask
                if mask == corrected.get(case.stem) or not mask.exists():
                    continue
                if file_hash(mask) != self._masks.get(case.stem):
                    raise DataError(
                        f"{mask}: is not as the former run wrote it, and no corrected mask either; "
                        "put it into the folder of --corrections_dir or remove it (nothing was "
                        "overwritten)."
                    )
        else:
            self._check_empty(paths, earlier)
        tables = (self.output_dir / name for name in ("cases.csv", _RECORD, "report.html"))
        remove_unfinished([*paths, *tables])
        self._write_record()

    def share(self, cases: Iterable[Case], own: Iterable[Case]) -> None:
        """Leave all cases but its own to copies of this record in other processes."""
        self._order, own = [case.stem for case in cases], list(own)
        self._own = {*(case.stem for case in own), *map(self._name, self._paths(own))}

    def finished(self, case: Case) -> bool:
        """Whether the case was done by this run's settings, and its scan and files are the same.

        A mask that a person has changed since counts, a damaged one does not: a file that is no
        label map of the scan's grid.
        """
        row, mask = self.rows.get(case.stem), self.files(case).mask
        if row is None or row.status != DONE or not case.image.exists() or not mask.exists():
            return False
        if self._scans.get(case.stem) != file_hash(case.image):
            return False
        if not self._as_written(case.stem, mask):
            if _is_damaged(mask, case.image):
                return False
            logger.warning("%s: was changed after it was written, so it is kept.", mask)
            return True
        return all(
            path.exists() and self._files.get(self._name(path)) == file_hash(path)
            for path in self._paths([case])
        )

    def claim(self, masks: Mapping[Case, Path]) -> None:
        """Note masks, under their hidden names, that cases are about to get; make room for them.

        A mask that no run wrote is set aside, not overwritten.
        """
        for case, mask in masks.items():
            self._clear(case)
            self._masks[case.stem] = file_hash(mask)
        with self._of_all_processes():
            self._write_record()

    def discard(self, case: Case, scan: str) -> None:
        """Remove what shows a former scan of this name; what no run wrote is set aside.

        `scan` is the hash of the scan as it is now.
        """
        if self._scans.get(case.stem, scan) == scan:
            return
        self._clear(case)
        for path in self._paths([case]):
            path.unlink(missing_ok=True)
        self._scans.pop(case.stem, None)
        self._masks.pop(case.stem, None)

    def add(self, case: Case, row: CaseRow, scan: str, made_here: bool = True) -> None:
        """Record a case, its scan by the hash taken before it was read; `write` comes next.

        `made_here` says whether this run made the mask; otherwise a person did.
        """
        self.rows[case.stem] = row
        if row.status == DONE:
            self._scans[case.stem] = scan
            self._files |= {self._name(path): file_hash(path) for path in self._paths([case])}
            mask = self._files[self._name(self.files(case).mask)]
            self._masks[case.stem] = mask if made_here else ""

    def sort(self, stems: Sequence[str]) -> None:
        """Bring the lines into the order of the stems of all cases, those of others first."""
        place = {stem: number for number, stem in enumerate(stems)}
        self.rows = dict(sorted(self.rows.items(), key=lambda row: place.get(row[0], -1)))

    def write(self) -> None:
        """Rewrite `cases.csv` and `run.json`; an interruption leaves the former files."""
        names = [f"{column}_{what}" for what in ("ml", "expected_dice") for column in self.columns]
        lines = [["case", "status", "seconds", *names, "modality", "warning", "message"]]
        with self._of_all_processes():
            for row in self.rows.values():
                figures = [
                    f"{known[column]:.3f}" if column in known else ""
                    for known in (row.volumes, row.expected_dice)
                    for column in self.columns
                ]
                remarks = [row.modality, row.warning, row.message]
                lines.append([row.case, row.status, f"{row.seconds:.2f}", *figures, *remarks])
            # the record first: it decides what counts
            self._write_record()
            self._write_text("cases.csv", csv_table(lines))

    def _write_record(self) -> None:
        record = {
            "run_hash": self.run_hash,
            "settings": self.settings,
            "cases": self._scans,
            _MASKS: self._masks,
            "files": self._files,
            "rows": self.rows,
        }
        self._write_text(_RECORD, json.dumps(record, indent=2, default=vars) + "\n")

    @contextmanager
    def _of_all_processes(self) -> Iterator[None]:
        """Hold the files on disk, with what other processes wrote of their cases taken up."""
        if self._order is None:
            yield
            return
        with FileLock(self.output_dir / _LOCK):
            there = _read(self.output_dir)
            self._scans = self._joined(there["cases"], self._scans)
            self._masks = self._joined(there[_MASKS], self._masks)
            self._files = self._joined(there["files"], self._files)
            self.rows = self._joined(there["rows"], self.rows)
            self.sort(self._order)
            yield

    def _joined(self, there: Mapping[str, T], here: Mapping[str, T]) -> dict[str, T]:
        """What others wrote, but of what is this one's the entries here."""
        others = {key: value for key, value in there.items() if key not in self._own}
        return others | {key: value for key, value in here.items() if key in self._own}

    def _write_text(self, name: str, text: str) -> None:
        with writing(self.output_dir / name):
            atomic_write_text(self.output_dir / name, text)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.output_dir).as_posix()

    def _as_written(self, stem: str, mask: Path) -> bool:
        return file_hash(mask) in (self._masks.get(stem), self._files.get(self._name(mask)))

    def _clear(self, case: Case) -> None:
        mask = self.files(case).mask
        if not mask.exists():
            return
        if self._as_written(case.stem, mask):
            mask.unlink()
            return
        folder = mask.parent / _SET_ASIDE
        names = (f"{number}_{mask.name}" if number > 1 else mask.name for number in count(1))
        kept = next(folder / name for name in names if not (folder / name).exists())
        folder.mkdir(exist_ok=True)
        mask.rename(kept)
        logger.warning("%s: is not as it was written; it is now %s.", mask, kept)

    def _check_empty(self, outputs: Sequence[Path], earlier: Mapping[str, Any]) -> None:
        former = (self.output_dir / name for name in earlier.get("files", {}))
        taken = next((path for path in (*outputs, *former) if path.exists()), None)
        if taken is None:
            return
        what = f"is there already, and no {_RECORD} says which run wrote it"
        if earlier:
            there, here = earlier["settings"], self.settings
            changed = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
            what = (
                "already holds the result of a run with another support or other settings (they "
                f"differ in: {', '.join(changed)})"
            )
        raise DataError(f"{taken}: {what}; choose another --output_dir (nothing was overwritten).")


def _read(folder: Path) -> dict[str, Any]:
    """The record of an earlier run; empty where there is none."""
    path = folder / _RECORD
    try:
        record: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        record["rows"] = {stem: CaseRow(**row) for stem, row in record["rows"].items()}
        for name, kind in (("run_hash", str), ("settings", dict), ("cases", dict)):
            if not isinstance(record[name], kind):
                raise TypeError(name)
        return record
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is damaged or no record of a folder run, so nobody knows what wrote the "
            "masks beside it; choose another --output_dir, or move this file away if no mask "
            "is there (nothing was overwritten)."
        ) from error


def read_rows(folder: Path) -> dict[str, CaseRow]:
    """The lines of a folder run by the stem of their scan; empty where none was written."""
    return dict(_read(folder).get("rows", {}))


def finished_scans(folder: Path) -> dict[str, CaseRow]:
    """The lines of the scans that have a mask in an output folder, by the `file_hash` of a scan."""
    scans = _read(folder).get("cases", {})
    return {
        scans[stem]: row
        for stem, row in read_rows(folder).items()
        if row.status == DONE and stem in scans and (folder / f"{stem}_seg.nii.gz").is_file()
    }


def masks_as_written(folder: Path) -> dict[str, str] | None:
    """Hashes of the masks that a run wrote into a folder; "" for masks that it took over.

    None where it is no output folder; one that does not say what its run wrote is a `DataError`.
    """
    path = folder / _RECORD
    if not path.is_file():
        return None
    try:
        masks = parse_json(path.read_text(encoding="utf-8"))[_MASKS]
        return {str(stem): str(digest) for stem, digest in masks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: does not say which masks the run wrote; put the corrected masks in a folder "
            "of their own and name that by --corrections_dir."
        ) from error


def _is_damaged(mask: Path, scan: Path) -> bool:
    """Whether a mask is no label map of its scan's grid; False where the scan is not readable."""
    with suppress(DataError):
        image = load_image(scan)
        try:
            load_label(mask, image)
        except DataError:
            return True
    return False
