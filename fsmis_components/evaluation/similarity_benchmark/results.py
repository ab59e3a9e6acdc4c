"""The results folder of a similarity benchmark: JSON with all facts, CSV and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.evaluation.pipe_table import pipe_table
from fsmis_components.evaluation.provenance import surroundings
from fsmis_components.evaluation.similarity_benchmark.measure import Measured
from fsmis_components.evaluation.similarity_benchmark.work import Ceilings

NAME = "similarity"
_TITLES = (
    *("side", "P", "C", "contender", "time (ms)", "speed (quartiles)", "temporary (MiB)"),
    *("error", "Gop", "MiB", "ceiling"),
)
_NOTES = """\
*Time*: median of a call over the rounds, in which all contenders take turns. *Speed*: how many
times faster than matmul + softmax in the same round, median and quartiles. *Temporary*: peak of
PyTorch's allocator above inputs and results. *Error*: largest difference to the definition in
float64. *Ceiling*: the least time that the measured ceilings allow, over the median; in brackets
which one binds. Operations and bytes are the least that the problem needs, not what a contender
spends; a problem that stays in caches may exceed the ceiling of bytes.
"""


def claim_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note in an output folder what is going to be measured.

    Raises:
        DataError: it holds a benchmark already, or cannot be written.
    """
    path = folder / f"{NAME}.json"
    if path.exists():
        raise DataError(
            f"{folder}: holds a similarity benchmark already; choose another --output_dir "
            "(nothing was overwritten)."
        )
    try:
        atomic_write_text(path, _json(facts, []))
    except OSError as error:
        raise unwritable(folder, error) from error


def run_facts(
    device: torch.device, ceilings: Mapping[str, Ceilings], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a table of times depends on.

    Args:
        device: where it was measured.
        ceilings: by dtype.
        settings: of the run, as JSON values.
    """
    return {
        **surroundings(device),
        "device": device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "ceilings": {dtype: asdict(ceiling) for dtype, ceiling in ceilings.items()},
        "settings": dict(settings),
    }


def write_tables(folder: Path, facts: Mapping[str, Any], rows: Sequence[Measured]) -> list[Path]:
    """Write what is measured so far; return the Markdown, CSV and JSON files."""
    texts = {"md": markdown(facts, rows), "csv": _csv(rows), "json": _json(facts, rows)}
    paths = [folder / f"{NAME}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        atomic_write_text(path, text)
    return paths


def markdown(facts: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    """A table for each reduction, dtype and pass, and the reasons of what was skipped."""
    lines = ["# Prototype similarity: time and memory", "", *_facts_lines(facts)]
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in rows:
        groups.setdefault((row.case.reduction, row.case.dtype, row.direction), []).append(row)
    for (reduction, dtype, direction), own in groups.items():
        table = pipe_table(_TITLES, map(_cells, own), {_TITLES.index("contender")})
        lines += [f"## {reduction}, {dtype}, {direction}", "", table, ""]
    skipped: dict[str, list[str]] = {}
    for row in rows:
        if row.skipped:
            skipped.setdefault(row.contender, []).append(row.skipped)
    if skipped:
        lines += ["## Skipped", ""]
        # a reason names sizes: one of a contender tells what the others say
        lines += [f"- {name}, {len(why)} times: {why[0]}" for name, why in skipped.items()]
        lines.append("")
    return "\n".join([*lines, _NOTES])


def _facts_lines(facts: Mapping[str, Any]) -> list[str]:
    settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
    versions = ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
    lines = [
        f"- machine: {facts['machine']} ({facts['device']}, {facts['cpu_capability']}), "
        f"{facts['threads']} threads",
        f"- versions: {versions}",
        f"- run: {settings}",
    ]
    lines += [
        f"- measured ceilings, {dtype}: {ceiling['operations'] / 1e12:.3f} Top/s of a matrix "
        f"product, {ceiling['bytes'] / 1e9:.1f} GB/s of a copy"
        for dtype, ceiling in facts["ceilings"].items()
    ]
    return [*lines, ""]


def _cells(row: Measured) -> list[str]:
    case = row.case
    head = [str(case.side), str(case.prototypes), str(case.channels), row.contender]
    work = [f"{row.operations / 1e9:.3f}", f"{row.bytes / 2**20:.2f}"]
    if row.seconds is None or row.temporary_bytes is None or row.ceiling_share is None:
        return [*head, "skipped", "-", "-", "-", *work, "-"]
    speed = "-"
    if row.speed is not None:
        speed = f"{row.speed:.2f} ({row.speed_low:.2f} to {row.speed_high:.2f})"
    return [
        *head,
        f"{row.seconds * 1e3:.3f}",
        speed,
        f"{row.temporary_bytes / 2**20:.2f}",
        f"{row.largest_error:.1e}",
        *work,
        f"{row.ceiling_share:.0%} ({row.bound})",
    ]


def _flat(row: Measured) -> dict[str, Any]:
    own = asdict(row)
    return {**own.pop("case"), **own}


def _csv(rows: Sequence[Measured]) -> str:
    if not rows:
        return ""
    lines = [_flat(row) for row in rows]
    return csv_table([list(lines[0]), *(list(line.values()) for line in lines)])


def _json(facts: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    content = {**facts, "rows": [_flat(row) for row in rows]}
    return json.dumps(content, indent=1) + "\n"
