"""A results folder: finished cases as JSON, each written whole, so that a run can go on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.json_text import parse_json
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
        note_once(self.folder / "unit.json", identity, results=self.folder.glob("*.json"))

    def finished(self, case: str, fingerprint: str) -> CaseRecord | None:
        """The record of a case that was finished with the same files; None otherwise."""
        path = self.folder / f"{file_name(case)}.json"
        if not path.is_file():
            return None
        record = read_record(path)
        if record.fingerprint != fingerprint or record.message:
            return None
        whole = all(
            (self.root / mask).is_file() and file_hash(self.root / mask) == digest
            for mask, digest in record.mask_hashes.items()
        )
        return record if whole else None

    def add(self, case: str, record: CaseRecord) -> None:
        """Keep a record."""
        text = json.dumps(asdict(record), indent=1) + "\n"
        atomic_write_text(self.folder / f"{file_name(case)}.json", text)

    def mask_path(self, case: str, protocol: str, labelled: str) -> Path:
        """Where the label map of a case goes."""
        name = f"{file_name(case)}_{protocol}_{labelled}.nii.gz"
        return self.root / "masks" / self.name / name


def note_once(path: Path, content: Mapping[str, Any], results: Iterable[Path]) -> None:
    """Note in a new folder what its results come from, or refuse to mix two kinds of them.

    Args:
        path: the note, a JSON file; it is on disk before any result.
        content: JSON values.
        results: what lies there of an earlier run.

    Raises:
        DataError: the note says something else, is damaged, or is missing beside results; or it
            cannot be written.
    """
    wanted = json.loads(json.dumps(content, sort_keys=True))
    if path.is_file():
        there = read_json(path, "choose another --output_dir")
        changed = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
        if changed:
            raise DataError(
                f"{path.parent}: holds results that differ in {', '.join(changed)}; choose "
                "another --output_dir (nothing was overwritten)."
            )
        return
    if found := next(iter(results), None):
        raise DataError(
            f"{found}: is there already, and no {path.name} says what it comes from; choose "
            "another --output_dir (nothing was overwritten)."
        )
    with writing(path.parent):
        atomic_write_text(path, json.dumps(wanted, indent=2, sort_keys=True) + "\n")


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
    lines: list[list[object]] = [[entry.name for entry in fields(Row)]]
    for row in rows:
        line = asdict(row)
        for figure in FIGURES:
            value = line[figure]
            line[figure] = f"{value:.{_DECIMALS}f}" if math.isfinite(value) else ""
        lines.append(list(line.values()))
    atomic_write_text(Path(path), csv_table(lines))
    return Path(path)


def read_json(path: Path, advice: str = "delete it to have it anew") -> dict[str, Any]:
    """Read an object of a results folder.

    Raises:
        DataError: the file is damaged; the message ends with the advice.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {advice}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: cannot be read (no object); {advice}.")
    return content
