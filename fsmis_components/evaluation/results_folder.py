"""A results folder: finished cases as JSON, each written whole, so that a run can go on."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.evaluation.records import FIGURES, CaseRecord, Row, SliceCounts

_DECIMALS = 4


class UnitFolder:
    """The finished cases of one subject with one support of one fold.

    Args:
        root: the results folder.
        method: name of the subject.
        unit: names fold, shots, choice of support and group.
        identity: everything that decides the figures, as JSON values; a folder that was filled
            under another identity is refused.

    Raises:
        DataError: other weights, settings or code filled the folder, or it cannot be written.
    """

    def __init__(self, root: Path, method: str, unit: str, identity: Mapping[str, Any]) -> None:
        self.root = root
        self.name = f"{file_name(method)}/{unit}"
        self.folder = root / "cases" / self.name
        wanted = json.loads(json.dumps(identity, sort_keys=True))
        path = self.folder / "unit.json"
        if path.is_file():
            there = read_json(path)
            changed = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
            if changed:
                raise DataError(
                    f"{self.folder}: holds results that differ in {', '.join(changed)}; choose "
                    "another --output_dir (nothing was overwritten)."
                )
            return
        try:
            atomic_write_text(path, json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def finished(self, case: str, fingerprint: str) -> CaseRecord | None:
        """The record of a case that was finished with the same files; None otherwise."""
        path = self.folder / f"{file_name(case)}.json"
        if not path.is_file():
            return None
        record = read_record(path)
        return record if record.fingerprint == fingerprint and not record.message else None

    def add(self, case: str, record: CaseRecord) -> None:
        """Keep a record."""
        text = json.dumps(asdict(record), indent=1) + "\n"
        atomic_write_text(self.folder / f"{file_name(case)}.json", text)

    def mask_path(self, case: str, protocol: str, labelled: str) -> Path:
        """Where the label map of a case goes."""
        name = f"{file_name(case)}_{protocol}_{labelled}.nii.gz"
        return self.root / "masks" / self.name / name


def file_name(name: str) -> str:
    """A name that is safe as the name of a file."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "unnamed"


def read_record(path: Path) -> CaseRecord:
    """Read the record of a case.

    Raises:
        DataError: the file is damaged.
    """
    content = read_json(path)
    try:
        content["rows"] = [Row(**row) for row in content["rows"]]
        content["counts"] = [SliceCounts(**entry) for entry in content["counts"]]
        return CaseRecord(**content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a record of a case; delete it to have it anew.") from error


def read_records(root: Path) -> list[CaseRecord]:
    """All records of a results folder, in the order of their paths.

    Raises:
        DataError: there are none, or one is damaged.
    """
    paths = sorted(path for path in root.glob("cases/*/*/*.json") if path.name != "unit.json")
    if not paths:
        raise DataError(
            f"{root}: no results there; make them with 'benchmark.py evaluate', or name the "
            "--output_dir of such a run."
        )
    return [read_record(path) for path in paths]


def write_rows(rows: Sequence[Row], path: str | Path) -> Path:
    """Write rows as CSV, an undefined figure as an empty field."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, [entry.name for entry in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = asdict(row)
        for figure in FIGURES:
            value = line[figure]
            line[figure] = f"{value:.{_DECIMALS}f}" if math.isfinite(value) else ""
        writer.writerow(line)
    atomic_write_text(Path(path), lines.getvalue())
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of a results folder.

    Raises:
        DataError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it to have it anew.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: damaged (no object); delete it to have it anew.")
    return content
