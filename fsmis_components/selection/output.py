"""A proposal for people: on the terminal, as a table, and as a picture of slices to label."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

from fsmis_components.data.atomic import atomic_write, atomic_write_text
from fsmis_components.data.csv_table import csv_table
from fsmis_components.data.errors import writing
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import load_image
from fsmis_components.reporting.drawing import cut_slices, grey, mosaic, new_figure, write_numbers
from fsmis_components.selection.proposal import Proposal, RankedScan

_SHOWN = 10  # scans that are printed
_MOST_NAMES = 40  # names of more scans would overlap
_LONGEST_NAME = 18  # its end is shown, which tells scans apart
_MOST_SCANS = 3  # whose slices are shown
_MOST_SLICES = 8  # of each
_PROPOSED, _LABELLED = "#e6550d", "#3182bd"


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
    lines.append("gain of labelling one scan now, and similarity to the other scans:")
    lines.append(f"{'rank':>4}  {'gain':>6}  {'similarity':>10}  scan")
    for rank, scan in enumerate(proposal.scans[:_SHOWN], start=1):
        lines.append(f"{rank:>4}  {scan.gain:6.3f}  {scan.similarity:10.3f}  {scan.name}")
    if len(proposal.scans) > _SHOWN:
        lines.append(f"      and {len(proposal.scans) - _SHOWN} more")
    lines += [f"left out: {message}" for message in proposal.left_out.values()]
    return "\n".join(lines) + "\n"


def write_proposal(folder: Path, proposal: Proposal, facts: Mapping[str, Any]) -> None:
    """Write `suggestion.json` (slices from 0), `.csv` (from 1, as in overlays) and `.png`.

    Args:
        folder: receives the files.
        proposal: at least one scan is proposed.
        facts: how it was made, as JSON values.

    Raises:
        DataError: they cannot be written.
    """
    scans = [asdict(scan) for scan in proposal.scans]
    content = {"facts": dict(facts), "scans": scans, "left_out": proposal.left_out}
    rows: list[list[object]] = [
        ["rank", "scan", "proposed", "gain", "similarity", "slices", "label_slices"]
    ]
    for rank, scan in enumerate(proposal.scans, start=1):
        wanted = [f"{what}: {_numbers(own, first=1)}" for what, own in scan.slices.items()]
        figures = [f"{scan.gain:.4f}", f"{scan.similarity:.4f}"]
        rows.append([rank, scan.name, scan.chosen or "", *figures, scan.depth, "; ".join(wanted)])
    with writing(folder):
        atomic_write_text(folder / "suggestion.json", json.dumps(content, indent=2) + "\n")
        atomic_write_text(folder / "suggestion.csv", csv_table(rows))
        _save_picture(folder / "suggestion.png", proposal)


def _save_picture(path: Path, proposal: Proposal) -> None:
    """The similarity of all scans, in the order of the table, beside slices to label."""
    figure = new_figure(13, 6.5, layout="constrained")
    halves = figure.add_gridspec(1, 2)
    left, right = (figure.add_subfigure(halves[0, half]) for half in (0, 1))
    _draw_similarity(left, proposal)
    proposed = [scan for scan in proposal.scans if scan.chosen][:_MOST_SCANS]
    rows = right.add_gridspec(len(proposed), 1)
    for row, scan in enumerate(proposed):
        _draw_slices(right.add_subfigure(rows[row, 0]), scan)
    atomic_write(path, lambda unfinished: figure.savefig(unfinished, dpi=110))


def _draw_similarity(figure: SubFigure, proposal: Proposal) -> None:
    axes, count = figure.add_subplot(), len(proposal.names)
    shown = proposal.similarity.copy()
    np.fill_diagonal(shown, np.nan)  # a scan's similarity to itself says nothing
    drawn = axes.imshow(shown, cmap="viridis", interpolation="nearest")
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="similarity")
    axes.set(xticks=[], yticks=[])
    if count <= _MOST_NAMES:
        names = [name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
                 for name in proposal.names]  # fmt: skip
        axes.set_xticks(range(count), names, rotation=90, fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    labelled = count - len(proposal.scans)
    for row in range(labelled + sum(1 for scan in proposal.scans if scan.chosen)):
        colour = _LABELLED if row < labelled else _PROPOSED
        axes.add_patch(Rectangle((-0.5, row - 0.5), count, 1, fill=False, ec=colour, lw=2))
    title = "How similar the scans are (orange: proposed"
    axes.set_title(title + (", blue: labelled)" if labelled else ")"), fontsize=10)


def _draw_slices(figure: SubFigure, scan: RankedScan) -> None:
    wanted = sorted({number for slices in scan.slices.values() for number in slices})
    places = np.linspace(0, len(wanted) - 1, min(len(wanted), _MOST_SLICES)).round()
    numbers = [wanted[int(place)] for place in places]
    view = SliceView(load_image(scan.image), scan.grid)
    slices = cut_slices(view, numbers)
    picture, corners = mosaic(slices)
    axes = figure.add_subplot()
    axes.imshow(grey(picture, slices))
    axes.set_axis_off()
    write_numbers(axes, numbers, view.depth, corners)
    axes.set_title(f"{scan.name}: slices to label", fontsize=10)


def _numbers(slices: Sequence[int], first: int) -> str:
    return ", ".join(str(index + first) for index in slices)
