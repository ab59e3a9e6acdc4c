"""The page of a folder run: what was segmented by what, how large, and what to look at first."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fsmis_components.inferers.report.facts import facts_table
from fsmis_components.inferers.report.page_frame import page_frame
from fsmis_components.inferers.report.style import DARK
from fsmis_components.inferers.report.volume_hints import (
    FEWEST,
    VolumeSummary,
    summarise_volumes,
    volume_hints,
)
from fsmis_components.inferers.report.wording import counted, in_ml, listing
from fsmis_components.inferers.run_record import DONE, FAILED, CaseRow
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.support_set import Structure

TITLE = "Segmented scans"
_MOST_UNUSED = 200  # rows of the page
_STYLE = (
    DARK
    + """
.hint { color: #b45309; font-weight: 600; }
tr.failed td { background: var(--warn); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; }
th.right { white-space: nowrap; }
td.name { min-width: 12ch; }
td.remark { min-width: 22ch; }
.case { margin: 26px 0 0; }
.case h3, td { overflow-wrap: anywhere; }
.case img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
@media screen and (prefers-color-scheme: dark) { .hint { color: #f0a45a; } }
"""
)
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_PNG_HEAD = struct.Struct(">8s4x4sII")  # signature, length, "IHDR", width, height


def render_folder_page(
    rows: Sequence[CaseRow],
    structures: Sequence[Structure],
    facts: Mapping[str, Any],
    folder: Path,
    calibration: Calibration | None = None,
    unused: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole HTML text.

    Args:
        rows: one per scan, finished or failed.
        structures: what was looked for, in order.
        facts: how it was made, as JSON values; "method" and "support" are named in the lead.
        folder: the output folder, in which masks and pictures lie.
        calibration: the support's test of itself; None where it was not made.
        unused: what in the folder of scans was not used, and why.
    """
    summaries = summarise_volumes(rows, [structure.column for structure in structures])
    failed = [row for row in rows if row.status == FAILED]
    done = [row for row in rows if row.status == DONE]
    parts = [f"<h1>{TITLE}</h1>", _lead(done, structures, facts)]
    if failed:
        verb = "was" if len(failed) == 1 else "were"
        parts.append(
            f'<p class="warning">{counted(len(failed), "scan")} failed and {verb} not segmented: '
            'see the first lines of <a href="#scans">the table</a>.</p>'
        )
    parts.append(f"<h2>Structures</h2>\n{_structure_table(structures, summaries, calibration)}")
    parts.append(
        '<h2 id="scans">Scans</h2>\n<p class="soft">Volumes in ml, and below them the Dice in % '
        "that is expected of the mask. Marked: a structure that was not found, one far from the "
        f"median of the folder (only where at least {FEWEST} scans show it), or one of little "
        "expected Dice. A mark is a reason to look, no verdict; without a mark a mask "
        f"may be wrong as well.</p>\n{_scan_table([*failed, *done], structures, summaries)}"
    )
    if done:
        parts.append("<h2>Pictures</h2>")
        parts += [_picture(row, structures, summaries, folder) for row in done]
    if unused:
        parts.append(f"<h2>Not used</h2>\n{_unused_table(unused)}")
    parts.append(f"<h2>How this was made</h2>\n{facts_table(facts)}")
    return page_frame(TITLE, parts, _STYLE)


def _lead(
    done: Sequence[CaseRow], structures: Sequence[Structure], facts: Mapping[str, Any]
) -> str:
    names = listing([structure.name for structure in structures])
    text = (
        f"{facts['method']} looked for {names} in {counted(len(done), 'scan')}, "
        f"by the example of {facts['support']}."
    )
    return f'<p class="lead">{escape(text)} Look at the pictures before you use a mask.</p>'


def _structure_table(
    structures: Sequence[Structure],
    summaries: Mapping[str, VolumeSummary],
    calibration: Calibration | None,
) -> str:
    rows = []
    for index, structure in enumerate(structures):
        own = summaries[structure.column]
        extent = f"{in_ml(own.found[0])} to {in_ml(own.found[-1])}" if own.found else "-"
        middle = in_ml(own.median) if own.found else "-"
        rows.append(
            f"<tr><td>{_swatch(structure)}{escape(structure.name)}</td>"
            f'<td class="right">{structure.value}</td><td class="right">{middle}</td>'
            f'<td class="right">{extent}</td>'
            f'<td class="right">{len(own.found)} of {len(own.found) + own.missing}</td>'
            f"<td>{'-' if calibration is None else calibration.tests[index].describe()}</td></tr>"
        )
    head = "".join(
        f'<th class="right">{title}</th>'
        for title in ("value in the mask", "median ml", "smallest to largest ml", "found in")
    )
    return _table(f"<th>structure</th>{head}<th>the support's test of itself, Dice in %</th>", rows)


def _scan_table(
    rows: Sequence[CaseRow],
    structures: Sequence[Structure],
    summaries: dict[str, VolumeSummary],
) -> str:
    head = '<th>scan</th><th>status</th><th class="right">seconds</th>' + "".join(
        f'<th class="right">{_swatch(structure)}{escape(structure.name)}</th>'
        for structure in structures
    )
    return _table(
        f"{head}<th>remarks</th>", [_scan_row(row, structures, summaries) for row in rows]
    )


def _scan_row(
    row: CaseRow, structures: Sequence[Structure], summaries: dict[str, VolumeSummary]
) -> str:
    hints = volume_hints(row, summaries)
    cells = []
    for structure in structures:
        volume = row.volumes.get(structure.column)
        mark = " hint" if structure.column in hints else ""
        text = "" if volume is None else in_ml(volume)
        expected = row.expected_dice.get(structure.column)
        below = "" if expected is None else f'<br><span class="soft">{100 * expected:.0f} %</span>'
        cells.append(f'<td class="right{mark}">{text}{below}</td>')
    name = escape(row.case)
    if row.status == DONE:
        name = f'<a href="#{_anchor(row)}">{name}</a>'
    style = ' class="failed"' if row.status == FAILED else ""
    return (
        f'<tr{style}><td class="name">{name}</td><td>{escape(row.status)}</td>'
        f'<td class="right">{row.seconds:.1f}</td>{"".join(cells)}'
        f'<td class="remark">{escape(row.message) or _remarks(row, hints, structures)}</td></tr>'
    )


def _unused_table(unused: Sequence[tuple[str, str]]) -> str:
    rows = [
        f'<tr><td class="name">{escape(path)}</td><td class="remark">{escape(why)}</td></tr>'
        for path, why in unused[:_MOST_UNUSED]
    ]
    if len(unused) > _MOST_UNUSED:
        rows.append(f"<tr><td>and {len(unused) - _MOST_UNUSED} more</td><td></td></tr>")
    return _table("<th>file or folder</th><th>reason</th>", rows)


def _picture(
    row: CaseRow,
    structures: Sequence[Structure],
    summaries: dict[str, VolumeSummary],
    folder: Path,
) -> str:
    chips = "".join(
        f'<span class="chip">{_swatch(structure)}{escape(structure.name)} '
        f"{in_ml(row.volumes[structure.column])} ml{_expected(row, structure)}</span>"
        for structure in structures
    )
    hints = _remarks(row, volume_hints(row, summaries), structures)
    remark = f'<p class="hint">{hints}</p>' if hints else ""
    place = f"overlays/{row.case}.png"
    size = _png_size(folder / place)
    if size is None:
        picture = f'<p class="warning">There is no picture {escape(place)}.</p>'
    else:
        # with its size, so that a picture not yet loaded keeps its place and loads on time
        picture = (
            f'<img loading="lazy" src="{_link(place)}" width="{size[0]}" height="{size[1]}" '
            f'alt="Slices of {escape(row.case)} with outlines">'
        )
    return (
        f'<section class="case" id="{_anchor(row)}"><h3>{escape(row.case)}</h3>\n'
        f'<p class="chips">{chips}</p>{remark}\n{picture}\n</section>'
    )


def _remarks(row: CaseRow, hints: Mapping[str, str], structures: Sequence[Structure]) -> str:
    names = {structure.column: structure.name for structure in structures}
    remarks = [f"{names[column]}: {hint}" for column, hint in hints.items()]
    return escape(" ".join(part for part in ("; ".join(remarks), row.warning) if part))


def _expected(row: CaseRow, structure: Structure) -> str:
    expected = row.expected_dice.get(structure.column)
    return "" if expected is None else f", expected Dice {100 * expected:.0f} %"


def _swatch(structure: Structure) -> str:
    """A square in the structure's colour; grey where a pack gives something else than a colour."""
    colour = structure.colour if _COLOUR.fullmatch(structure.colour) else "#888888"
    return f'<i class="swatch" style="background:{colour}"></i>'


def _anchor(row: CaseRow) -> str:
    return f"scan-{_link(row.case)}"


def _link(place: str) -> str:
    """A path as a relative address; names may hold spaces, quotes, # and %."""
    return quote(place, safe="/")


def _png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG file; None where there is none."""
    try:
        with path.open("rb") as file:
            signature, kind, width, height = _PNG_HEAD.unpack(file.read(_PNG_HEAD.size))
    except (OSError, struct.error):
        return None
    return (width, height) if signature == b"\x89PNG\r\n\x1a\n" and kind == b"IHDR" else None


def _table(head: str, rows: Sequence[str]) -> str:
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )
