"""A suggestion as text: for the terminal, as CSV and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fsmis_components.data.csv_table import csv_table
from fsmis_components.inferers.suggest.slices import SliceChoice
from fsmis_components.inferers.suggest.suggestion import RankedScan

_SHOWN = 10  # scans that are printed


def printed(ranked: Sequence[RankedScan], failures: Mapping[str, str]) -> str:
    """The proposed scans with their slices, and the first of the others."""
    lines = []
    for scan in ranked:
        if not scan.chosen:
            continue
        lines.append(f"label {scan.image}")
        for choice, in_file in zip(scan.slices, scan.file_slices, strict=True):
            own = _numbers(choice, first=1)
            stored = _numbers(in_file, first=0)
            lines.append(
                f"  {choice.what}: slices {own} of {scan.depth} "
                f"(in the file {scan.file_axis} = {stored})"
            )
    lines.append("")
    lines.append("gain of labelling one scan now, and similarity to the other scans:")
    lines.append(f"{'rank':>4}  {'gain':>6}  {'similarity':>10}  scan")
    for rank, scan in enumerate(ranked[:_SHOWN], start=1):
        lines.append(f"{rank:>4}  {scan.gain:6.3f}  {scan.similarity:10.3f}  {scan.name}")
    if len(ranked) > _SHOWN:
        lines.append(f"      and {len(ranked) - _SHOWN} more")
    lines += [f"left out: {message}" for message in failures.values()]
    return "\n".join(lines) + "\n"


def csv_text(ranked: Sequence[RankedScan]) -> str:
    """All scans, one a line; slices are numbered from 1, as in overlays."""
    lines: list[list[object]] = [
        ["rank", "scan", "proposed", "gain", "similarity", "slices", "label_slices"]
    ]
    for rank, scan in enumerate(ranked, start=1):
        wanted = "; ".join(f"{each.what}: {_numbers(each, first=1)}" for each in scan.slices)
        figures = [f"{scan.gain:.4f}", f"{scan.similarity:.4f}"]
        lines.append([rank, scan.name, scan.chosen or "", *figures, scan.depth, wanted])
    return csv_table(lines)


def json_text(
    ranked: Sequence[RankedScan], failures: Mapping[str, str], facts: Mapping[str, Any]
) -> str:
    """Everything; slices are numbered from 0."""
    content = {
        "facts": dict(facts),
        "scans": [asdict(scan) for scan in ranked],
        "left_out": dict(failures),
    }
    return json.dumps(content, indent=2) + "\n"


def _numbers(choice: SliceChoice, first: int) -> str:
    return ", ".join(str(index + first) for index in choice.slices)
