"""From finished cases to what is read: `cases.csv`, `summary.json`, `table.md`, `report.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import markdown
import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.records import (
    ABSENT,
    SCORED,
    WHOLE_VOLUME,
    CaseRecord,
    Row,
    joined_hash,
    read_json,
    read_records,
    write_rows,
)
from fsmis_components.evaluation.summary import (
    FLOOR,
    PROTOCOLS,
    UNTRAINED,
    rows_frame,
    summarise,
    unit_means,
)
from fsmis_components.evaluation.tables import (
    LINE,
    labelled_title,
    markdown_table,
    protocol_title,
)
from fsmis_components.reporting.drawing import draw_overlay, embedded, new_figure
from fsmis_components.reporting.pages import render
from fsmis_components.support.support_set import PALETTE, Structure

# what Markdown knows beyond text and tables: names of scans and structures are only text
_NO_MARKUP = ("html", "link", "image_link", "reference", "image_reference", "short_reference")
# Okabe and Ito's colours, which colour-blind readers tell apart
COLOURS = dict(zip(PROTOCOLS, ("#e69f00", "#cc79a7", "#009e73", "#0b4f8a"), strict=True))
Line = tuple[str, str, str, int]  # method, setting, labelled slices, shots


def note_run(root: Path, command: str, failures: Sequence[str], **facts: Any) -> None:
    """Keep in `run.json` what was asked, so that the tables can name it.

    Args:
        root: the results folder.
        command: the command that regenerates the results.
        failures: one sentence each; those of an earlier run are replaced.
        facts: whatever else the tables are to carry, as JSON values.
    """
    path = root / "run.json"
    there = read_json(path) if path.is_file() else {}
    commands = list(dict.fromkeys([*there.get("commands", []), command]))
    content = {**there, **facts, "commands": commands, "failures": list(failures)}
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def write_results(roots: Sequence[Path], output_dir: Path) -> list[Path]:
    """Join results folders into one set of tables and a report.

    Everything but the report's pictures and `run.json` is the same, bit for bit, for the same
    weights, data, code, machine and number of threads.

    Args:
        roots: results folders of `run_benchmark`.
        output_dir: receives the files; may be one of the folders.

    Returns:
        The files: `table.md`, `report.html`, `cases.csv`, `summary.json`.

    Raises:
        DataError: a folder holds no results, two hold the same case of the same method, or two were
            made under different rules.
    """
    records = []
    for root in roots:
        for record in read_records(root):
            # masks as paths from the folder of the report
            masks = {
                k: os.path.relpath(root / path, output_dir) for k, path in record.masks.items()
            }
            records.append(replace(record, masks=masks))
    rows = sorted((row for record in records for row in record.rows), key=_order)
    run = _joined_runs(roots, records)
    summary = summarise(rows)
    table = markdown_table(summary, run)
    text = json.dumps({"run": run, **summary}, indent=1, allow_nan=False) + "\n"
    return [
        atomic_write_text(output_dir / "table.md", table),
        write_report(output_dir / "report.html", records, run, table),
        write_rows(rows, output_dir / "cases.csv"),
        atomic_write_text(output_dir / "summary.json", text),
    ]


def write_report(
    path: Path, records: Sequence[CaseRecord], run: Mapping[str, Any], table: str
) -> Path:
    """Write `report.html`, whole or not at all; the same input gives the same bytes.

    Args:
        path: the file; paths of masks are relative to its folder.
        records: finished cases.
        run: facts of the run as JSON values; "failures" lists what failed.
        table: the tables as Markdown.
    """
    rows = rows_frame([row for record in records for row in record.rows])
    blind = rows[rows.protocol == WHOLE_VOLUME]
    lines = list(rows[[*LINE]].drop_duplicates().itertuples(index=False, name=None))
    lines.sort(key=lambda line: (line[0] == FLOOR, line))
    structures = [
        Structure(str(entry.structure), int(entry.value), PALETTE[place % len(PALETTE)])
        for place, entry in enumerate(
            rows.drop_duplicates("structure").sort_values("value").itertuples()
        )
    ]
    absent = blind[blind.status == ABSENT].groupby("structure", sort=False).case.nunique()
    means = {line: unit_means(_of_line(blind, line)).dice for line in lines}
    candidates = [line for line in lines if len(means[line])]
    best = max(candidates, key=lambda line: (line[0] != FLOOR, means[line].mean()), default=None)
    # a name may hold a dollar sign, which is no formula
    with matplotlib.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}):
        page = render(
            "benchmark.html",
            title="Few-shot segmentation benchmark",
            methods=len({line[0] for line in lines} - {FLOOR}),
            floor=any(line[0] == FLOOR for line in lines),
            structures={structure.name: structure.colour for structure in structures},
            scans=int(rows.case.nunique()),
            protocols={
                protocol: (protocol_title(protocol).replace("`", ""), COLOURS[protocol])
                for protocol in PROTOCOLS
                if protocol in set(rows.protocol)
            },
            absent=absent.to_dict(),
            best=best and _name(best, lines),
            boxes=_boxes(rows, lines, structures),
            cases=_cases(records, blind, best, structures, path.parent) if best else [],
            table=_html(table),
            failures=list(dict.fromkeys(map(str, run.get("failures", [])))),
            run={key: value for key, value in run.items() if key != "failures"},
        )
    return atomic_write_text(path, page)


def _order(row: Row) -> tuple[Any, ...]:
    support = row.shots, row.choice, row.fold, row.labelled != "sections"
    return row.method, row.setting, *support, row.protocol, row.case, row.value


def _joined_runs(roots: Sequence[Path], records: Sequence[CaseRecord]) -> dict[str, Any]:
    """What the tables carry: commands, failures, hashes of weights, data and code."""
    run: dict[str, Any] = {"commands": [], "failures": [], "weights": {}, "dropped_slices": {}}
    codes, rules, surroundings = set(), set(), {}
    data = {record.image.rpartition("/")[2]: record.fingerprint for record in records}
    for root in roots:
        noted = read_json(root / "run.json") if (root / "run.json").is_file() else {}
        run["commands"] += [c for c in noted.get("commands", []) if c not in run["commands"]]
        run["failures"] += noted.get("failures", [])
        for path in sorted(root.glob("cases/*/*/unit.json")):
            unit = read_json(path)
            codes.add(unit["code"])
            rules.add(unit["rule"])
            surroundings[json.dumps(unit["surroundings"], sort_keys=True)] = unit["surroundings"]
            for fact in ("weights", "dropped_slices"):
                if fact in unit["subject"]:
                    name = f"{path.parent.parent.name} {path.parent.name}"
                    run[fact][name] = unit["subject"][fact]
            data |= {f"support {name}": value for name, value in unit["support"].items()}
    if len(rules) > 1:
        raise DataError(
            f"results: {' and '.join(sorted(rules))} choose support and queries differently, so "
            "they do not share a table; join folders of one rule."
        )
    run |= {"data_hash": joined_hash(data), "code": ", ".join(sorted(codes))}
    for facts in surroundings.values():
        for key, value in facts.items():
            run.setdefault(key, value)
            if run[key] != value:
                run[key] = f"{run[key]}; {value}"
    return run


def _of_line(rows: pd.DataFrame, line: Line) -> pd.DataFrame:
    return rows[(rows[[*LINE]] == list(line)).all(axis=1)]


def _boxes(
    rows: pd.DataFrame, lines: Sequence[Line], structures: Sequence[Structure]
) -> list[dict[str, str]]:
    """A chart per structure, before them one of the mean over structures if there are several."""
    names = [structure.name for structure in structures]
    parts = {name: rows[rows.structure == name] for name in names}
    if len(parts) > 1:
        parts = {"mean over structures": rows, **parts}
    charts = []
    for title, part in parts.items():
        shown = []
        for line in lines:
            rows_of_line = _of_line(part, line)
            for protocol in PROTOCOLS:
                values = unit_means(rows_of_line[rows_of_line.protocol == protocol]).dice.tolist()
                shown += [(_name(line, lines), protocol, values)] if values else []
        charts += [box_chart(title, shown)] if shown else []
    return charts


def box_chart(title: str, lines: Sequence[tuple[str, str, Sequence[float]]]) -> dict[str, str]:
    """Boxes of Dice: quartiles, median, extremes, a point per case, the mean as text.

    Args:
        title: of the chart.
        lines: name of the method, protocol, and Dice in percent of each case.

    Returns:
        "data": the address of the picture; "alt": it in words.
    """
    figure = new_figure(6.4, 0.32 * len(lines) + 0.9, layout="constrained")
    axes = figure.add_subplot()
    boxes = axes.boxplot(
        [line[2] for line in lines], orientation="horizontal", whis=(0, 100), patch_artist=True
    )
    for at, ((_, protocol, values), box) in enumerate(zip(lines, boxes["boxes"], strict=True), 1):
        box.set(facecolor=f"{COLOURS[protocol]}55", edgecolor=COLOURS[protocol])
        axes.plot(values, [at] * len(values), ".", color=COLOURS[protocol], markersize=4)
        axes.text(102, at, f"{np.mean(values):.1f}", va="center", fontsize=8)
    names = [name if len(name) <= 40 else f"{name[:20]}…{name[-19:]}" for name, *_ in lines]
    axes.set_yticks(range(1, len(lines) + 1), names, fontsize=8)
    axes.set(xlim=(-2, 112), xlabel="Dice (%), mean at the right", title=title)
    axes.invert_yaxis()
    spoken = "; ".join(
        f"{name}, {protocol}: median {np.median(values):.1f}, mean {np.mean(values):.1f}"
        for name, protocol, values in lines
    )
    return {"data": embedded(figure), "alt": f"Box plot of Dice, {title}. {spoken}"}


def _cases(
    records: Sequence[CaseRecord],
    blind: pd.DataFrame,
    best: Line,
    structures: Sequence[Structure],
    folder: Path,
) -> list[dict[str, Any]]:
    """Best, median and worst case of a method, with the first choice of support."""
    rows = _of_line(blind, best)
    means = unit_means(rows).dice.sort_values(ascending=False, kind="stable")
    ranks = {0: "Best", len(means) // 2: "Median", len(means) - 1: "Worst"}
    ranks = ranks if len(means) > 1 else {0: "Only"}
    found = []
    for place, rank in sorted(ranks.items()):
        fold, case = means.index[place]
        shown = rows[(rows.fold == fold) & (rows.case == case)]
        shown = shown[shown.choice == shown.choice.min()]
        dice = {
            row.structure: f"{row.dice:.1f}" if row.status == SCORED else row.status
            for row in shown.itertuples()
        }
        wanted = (*best, fold, case, shown.choice.min())
        used = [record for record in records if any(_unit(row) == wanted for row in record.rows)]
        entry = {"rank": rank, "fold": fold, "case": case, "mean": means.iloc[place], "dice": dice}
        try:
            drawn = [structure for structure in structures if structure.name in dice]
            key = f"{WHOLE_VOLUME}/{best[2]}"
            entry["picture"] = _picture(used, key, drawn, folder)
        except DataError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def _unit(row: Row) -> tuple[Any, ...]:
    return *(getattr(row, key) for key in LINE), row.fold, row.case, row.choice


def _picture(
    records: Sequence[CaseRecord], key: str, structures: Sequence[Structure], folder: Path
) -> str:
    """A case, label and prediction outlined; several models may each have segmented a part."""
    image = load_image(records[0].image)
    truth = np.asarray(load_label(records[0].label, image).data)
    found = np.zeros(image.shape, truth.dtype)
    for record in records:
        if key not in record.masks:
            raise DataError("the run kept no label map; evaluate the case again.")
        part = np.asarray(load_label(folder / record.masks[key], image).data)
        found = np.where(part > 0, part, found)
    grid = choose_slice_grid(image, slice_axis=records[0].slice_axis)
    return embedded(draw_overlay(image, found, structures, grid, "dashed: label", truth))


def _name(line: Line, lines: Sequence[Line]) -> str:
    """The method with its support, and its setting where there are several."""
    name = f"{line[0]}, {labelled_title(line[2], line[3])}"
    several = len({other[1] for other in lines} - {UNTRAINED}) > 1
    return f"{name}, setting {line[1]}" if several and line[1] != UNTRAINED else name


def _html(text: str) -> Markup:
    """Markdown as HTML; HTML and links in it are text."""
    converter = markdown.Markdown(extensions=["tables", "sane_lists"], tab_length=2)
    converter.preprocessors.deregister("html_block")
    for name in _NO_MARKUP:
        converter.inlinePatterns.deregister(name)
    return Markup(converter.convert(text))
