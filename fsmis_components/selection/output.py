"""A proposal for people: on the terminal and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.errors import writing
from fsmis_components.selection.proposal import Proposal

_SHOWN = 10  # scans that are printed


def proposal_text(proposal: Proposal) -> str:
    """The proposed scans with their slices, and the first of the others."""
    lines = []
    for scan in proposal.scans:
        if not scan.chosen:
            continue
        lines.append(f"label {scan.image}")
        for what, slices in scan.slices.items():
            lines.append(
                f"  {what}: slices {_numbers(slices, first=1)} of {scan.depth} "
                f"(in the file {scan.file_axis} = {_numbers(scan.file_slices[what], first=0)})"
            )
    lines.append("")
    lines.append(
        "gain: how much more like a labelled scan the others are with this one (their lower"
    )
    lines.append(
        "quartile); similarity: how like the others it is. Scans of close gains serve alike:"
    )
    lines.append(f"{'rank':>4}  {'gain':>6}  {'similarity':>10}  scan")
    for rank, scan in enumerate(proposal.scans[:_SHOWN], start=1):
        lines.append(f"{rank:>4}  {scan.gain:6.3f}  {scan.similarity:10.3f}  {scan.name}")
    if len(proposal.scans) > _SHOWN:
        lines.append(f"      and {len(proposal.scans) - _SHOWN} more")
    lines += [f"left out: {message}" for message in proposal.left_out.values()]
    return "\n".join(lines) + "\n"


def write_proposal(folder: Path, proposal: Proposal, facts: Mapping[str, Any]) -> None:
    """Write `suggestion.json` (slices from 0) and `.csv` (from 1, as in overlays).

    At least one scan is proposed; `facts` say how, as JSON values. What cannot be written is a
    `DataError`.
    """
    scans = [asdict(scan) for scan in proposal.scans]
    content = {"facts": dict(facts), "scans": scans, "left_out": proposal.left_out}
    rows: list[list[object]] = [
        ["rank", "scan", "proposed", "gain", "similarity", "slices", "label_slices"]
    ]
    for rank, scan in enumerate(proposal.scans, start=1):
        wanted = [f"{what}: {_numbers(slices, first=1)}" for what, slices in scan.slices.items()]
        figures = [f"{scan.gain:.4f}", f"{scan.similarity:.4f}"]
        rows.append([rank, scan.name, scan.chosen or "", *figures, scan.depth, "; ".join(wanted)])
    with writing(folder):
        atomic_write_text(folder / "suggestion.json", json.dumps(content, indent=2) + "\n")
        atomic_write_text(folder / "suggestion.csv", csv_table(rows))


def _numbers(slices: Sequence[int], first: int) -> str:
    return ", ".join(str(index + first) for index in slices)
