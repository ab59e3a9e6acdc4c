"""What a benchmark keeps: rows of figures, finished cases in a results folder, their origin."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import monai
import numpy as np
import scipy
import torch

import fsmis_components
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.safe_text import csv_table, parse_json
from fsmis_components.packaging import content_hash

SCORED = "scored"
ABSENT = "absent"  # the query's label does not hold the structure
UNDEFINED = "undefined"  # EP1 has no slice to score where the structure is absent

ORACLE = "oracle"
WHOLE_VOLUME = "wv"

FIGURES = ("dice", "nsd", "hd95_mm", "precision", "recall", "extent_error", "false_positive_ml")


@dataclass(frozen=True)
class Row:
    """Figures of one structure of one case under one protocol: a line of `cases.csv`.

    The figures are NaN where undefined.
    """

    method: str  # name of the subject
    setting: str  # of the subject, see `Subject.setting`
    fold: int
    choice: int  # which choice of support, from 0
    shots: int  # number K of support scans
    support: str  # their names, joined by "+"
    labelled: str  # "sections" (three slices per structure and support scan) or "all" slices
    protocol: str  # "ep1-alp", "ep1-qnet", "oracle" or "wv"
    case: str  # name of the query
    structure: str
    value: int  # label value of the structure
    status: str  # SCORED, ABSENT or UNDEFINED
    dice: float  # percent
    nsd: float  # normalised surface Dice, percent
    hd95_mm: float  # 95th percentile of the symmetric surface distance
    precision: float  # share of the prediction that is right, percent
    recall: float  # share of the label that was found, percent
    extent_error: float  # slices in one of the two ranges from first to last slice, not in both
    false_positive_ml: float  # predicted outside the label


@dataclass(frozen=True)
class CaseRecord:
    """Everything that is kept of a finished case of one subject, fold and support."""

    rows: list[Row]  # one per protocol, kind of labelled slices and structure
    image: str  # path of the query's image
    label: str  # path of its label
    masks: dict[str, str]  # saved label maps, by "protocol/labelled", as paths in the folder
    seconds: float  # wall-clock time
    fingerprint: str = ""  # hash of the query's image and label
    slice_axis: int = 2  # axis of the slices, see `SliceGrid`


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
    advice = "choose another --output_dir (nothing was overwritten)"
    if path.is_file():
        there = read_json(path, "choose another --output_dir")
        if changed := sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k)):
            raise DataError(
                f"{path.parent}: holds results that differ in {', '.join(changed)}; {advice}."
            )
        return
    if found := next(iter(results), None):
        raise DataError(
            f"{found}: is there already, and no {path.name} says what it comes from; {advice}."
        )
    with writing(path.parent):
        atomic_write_text(path, json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def file_name(name: str) -> str:
    """A name that is safe as the name of a file."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "unnamed"


def read_record(path: Path) -> CaseRecord:
    """Read the record of a case; a damaged file is a `DataError`."""
    content = read_json(path)
    known = [entry.name for entry in fields(CaseRecord)]  # earlier versions kept more
    try:
        rows = [Row(**row) for row in content["rows"]]
        return CaseRecord(**{key: content[key] for key in known if key in content} | {"rows": rows})
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a record of a case; delete it to have it anew.") from error


def read_records(root: Path) -> list[CaseRecord]:
    """All records of a results folder by their paths; none, or a damaged one, is a `DataError`."""
    paths = sorted(path for path in root.glob("cases/*/*/*.json") if path.name != "unit.json")
    if not paths:
        raise DataError(
            f"{root}: no results there; make them with 'benchmark.py evaluate', or name the "
            "--output_dir of such a run."
        )
    return [read_record(path) for path in paths]


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write rows as CSV, an undefined figure as an empty field."""
    lines = [[entry.name for entry in fields(Row)]]
    for row in map(asdict, rows):
        row |= {f: f"{row[f]:.4f}" if math.isfinite(row[f]) else "" for f in FIGURES}
        lines.append(list(row.values()))
    return atomic_write_text(path, csv_table(lines))


def read_json(path: Path, advice: str = "delete it to have it anew") -> dict[str, Any]:
    """Read an object of a results folder; a damaged one is a `DataError` that ends with advice."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {advice}.") from error
    return content


def code_hash() -> str:
    """SHA-256 over the files of the imported package."""
    return content_hash(Path(fsmis_components.__file__).parent)


def case_hash(case: Case) -> str:
    """SHA-256 of a case's image and label."""
    parts = [file_hash(path) for path in (case.image, case.label) if path is not None]
    return joined_hash({case.name: "".join(parts)})


def joined_hash(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    lines = (f"{name} {value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def surroundings(device: torch.device | None = None) -> dict[str, object]:
    """Versions, processor and threads: a table is bit-equal where these are.

    Args:
        device: where the work was done; None: on the GPU, if there is one.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    packages = (fsmis_components, torch, monai, np, scipy)
    return {
        "machine": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            **{package.__name__: str(package.__version__) for package in packages},
            "python": platform.python_version(),
        },
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    text = listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE)
    return named.group(1) if named else platform.processor() or platform.machine()
