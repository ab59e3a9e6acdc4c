"""The page: sections from the figure to take home down to the facts of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fsmis_components.evaluation.records import ABSENT, WHOLE_VOLUME, CaseRecord
from fsmis_components.evaluation.report.boxes import box_panels
from fsmis_components.evaluation.report.case_pictures import case_pictures
from fsmis_components.evaluation.report.headline import (
    Headline,
    cards,
    find_headline,
    legend,
    standings,
)
from fsmis_components.evaluation.report.markdown import to_html
from fsmis_components.evaluation.report.scatter import scatter_panels
from fsmis_components.evaluation.report.series import Results
from fsmis_components.evaluation.report.style import STYLE
from fsmis_components.evaluation.report.z_panels import z_panels, z_panels_of_structures
from fsmis_components.reporting.pages import counted, facts_table, listing, page_frame

TITLE = "Few-shot segmentation benchmark"


def render(
    records: Sequence[CaseRecord],
    summary: Mapping[str, Any],
    run: Mapping[str, Any],
    table: str,
    folder: Path,
) -> str:
    """The whole HTML text.

    Args:
        records: as in `write_report`, and so are the others.
        summary: of the same rows.
        run: facts of the run.
        table: Markdown.
        folder: the results folder, in which the masks lie.
    """
    failures = list(
        dict.fromkeys(
            [record.message for record in records if record.message]
            + [str(sentence) for sentence in run.get("failures", [])]
        )
    )
    results = Results([record for record in records if not record.message])
    headline = find_headline(results, summary)
    parts = [f"<h1>{TITLE}</h1>", _lead(results)]
    if failures:
        parts.append(
            f'<p class="warning">{counted(len(failures), "failure")}: what failed is in none of '
            'the figures. <a href="#failures">See which.</a></p>'
        )
    if headline is None:
        parts.append("<p>Nothing was scored over the whole volume, so there is no picture.</p>")
    else:
        parts += _pictures(results, headline, summary, folder)
    parts.append(f'<h2>Tables</h2>\n<div class="tables">{to_html(table, lower_headings=2)}</div>')
    parts.append(_failures(failures))
    facts = {key: value for key, value in run.items() if key != "failures"}
    parts.append(
        "<h2>Provenance</h2>\n<details><summary>All facts of the run</summary>"
        f"{facts_table(facts)}</details>"
    )
    return page_frame(TITLE, parts, STYLE)


def _lead(results: Results) -> str:
    if not results.series:
        return '<p class="lead">No scan was scored.</p>'
    methods = {series.method for series in results.series if not series.is_floor}
    who = [counted(len(methods), "method")] if methods else []
    who += ["the mask copy"] if any(series.is_floor for series in results.series) else []
    shots = sorted({series.shots for series in results.series})
    text = (
        f"{' and '.join(who)} outlined {listing(results.structures)} in "
        f"{counted(len(results.cases), 'scan')}, given "
        f"{' or '.join(str(number) for number in shots)} labelled "
        f"{'scan' if shots == [1] else 'scans'} as example."
    )
    text = text[0].upper() + text[1:]
    return f'<p class="lead">{escape(text)}</p>'


def _pictures(
    results: Results, headline: Headline, summary: Mapping[str, Any], folder: Path
) -> list[str]:
    methods = len({series.method for series in results.series if not series.is_floor})
    best = escape(results.full_name(headline.series))
    which = f"Best of {methods} methods" if methods > 1 else "The method"
    parts = [
        f'<p class="soft">{which}: <strong>{best}</strong>. Dice in percent, 100 is perfect; '
        "mean over structures and scans.</p>",
        cards(headline, results),
        f"<h3>Where the methods stand</h3>\n<p class='chips'>{legend(results)}"
        '<span class="chip soft">shade: 95 % interval over scans</span></p>',
        standings(results, summary),
        _glossary(results),
        "<h2>Dice per structure</h2>\n<p class='soft'>A point is a scan. Box: the middle half of "
        f"the scans; bar: median; line: from the worst to the best scan.{_absent(results)}</p>"
        f"\n<p class='chips'>{legend(results)}</p>\n{_grid(box_panels(results))}",
    ]
    scatter = scatter_panels(results)
    if scatter:
        told = " or ".join(results.protocol_name(protocol) for protocol in results.told)
        parts.append(
            "<h2>The price of not knowing where the organ lies</h2>\n"
            "<p class='soft'>A point is a structure of a scan. To the right: its Dice under "
            f"{escape(told)}, which reads from the true label where the structure begins and ends. "
            "Up: its Dice over the whole volume, where the method must find that itself. The "
            f"farther below the diagonal, the higher the price.</p>\n{_grid(scatter)}"
        )
    chips = "".join(
        f'<span class="chip"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in results.colours.items()
    )
    parts.append(
        f"<h2>Best, median and worst scan of {escape(headline.series.method)}</h2>\n"
        "<p class='soft'>By whole-volume Dice, the mean over structures beside the name. Slices "
        "are turned as radiologists see them (axial ones from the feet: the patient's right is at "
        "the left). Point at a slice to see it without outlines.</p>\n"
        f'<p class="chips"><span class="chip"><i class="dashed"></i>label</span>{chips}'
        '<span class="chip soft">(filled: prediction)</span></p>\n'
        + "\n".join(case_pictures(results, headline.series, folder))
    )
    panels = z_panels(results)
    if panels:
        parts.append(_along_z(results, headline, panels))
    return parts


def _along_z(results: Results, headline: Headline, panels: list[str]) -> str:
    text = (
        "<h2>Where along the organ it goes wrong</h2>\n"
        "<p class='soft'>Left to right: from the slice where the label begins to the one where it "
        "ends (axial slices: from the feet up). Above: Dice per slice. Below: predicted area, 1 "
        "is the structure's mean area; on the red ground there is no structure, so every area "
        "there is false. Dots at the rims: slices farther away.</p>\n"
        f"<p class='chips'>{legend(results)}</p>\n{_grid(panels)}"
    )
    if len(results.structures) > 1:
        own = z_panels_of_structures(results, headline.series)
        name = escape(results.name(headline.series))
        text += f"\n<h3>{name}, structure by structure</h3>\n{_grid(own)}"
    return text


def _glossary(results: Results) -> str:
    sentences = []
    if any(protocol.startswith("ep1") for protocol in results.told):
        sentences.append(
            "<strong>EP1</strong>, the protocol of most papers, reads from the true label in which "
            "slices each organ lies, and scores only these."
        )
    if "oracle" in results.told:
        sentences.append(
            "<strong>Oracle extent</strong> reads from the true label in which slices each organ "
            "lies."
        )
    sentences.append(
        "<strong>Whole volume</strong> gives the method the scan alone and scores every voxel: "
        "what a user gets."
    )
    if any(series.is_floor for series in results.series):
        sentences.append(
            "<strong>Floor</strong> (mask copy) lays the masks of the labelled scan on the new one "
            "without reading its image; only what exceeds it is owed to the method."
        )
    return f"<p>{' '.join(sentences)}</p>"


def _absent(results: Results) -> str:
    """A sentence on scans that do not hold a structure."""
    absent = {
        (row.structure, row.case)
        for record in results.records
        for row in record.rows
        if row.protocol == WHOLE_VOLUME and row.status == ABSENT
    }
    parts = [
        f"{escape(name)} in {counted(number, 'scan')}"
        for name in results.structures
        if (number := sum(structure == name for structure, _ in absent))
    ]
    if not parts:
        return ""
    return (
        " Where a scan does not hold a structure, Dice is 100 if nothing was predicted of it and "
        f"0 otherwise ({', '.join(parts)})."
    )


def _failures(failures: Sequence[str]) -> str:
    if not failures:
        return '<h2 id="failures">Failures</h2>\n<p>None: every case was scored.</p>'
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in failures)
    return f'<h2 id="failures">Failures</h2>\n<ul class="plain">\n{items}\n</ul>'


def _grid(panels: Sequence[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>'
