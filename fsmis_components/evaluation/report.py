"""From finished cases to what is read: `cases.csv`, `summary.json`, `table.md`, `report.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
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
    SCORED,
    WHOLE_VOLUME,
    CaseRecord,
    Row,
    joined_hash,
    read_json,
    read_records,
    write_rows,
)
from fsmis_components.evaluation.summary import FLOOR, rows_frame, summarise, unit_means
from fsmis_components.evaluation.tables import LINE, labelled_title, markdown_table
from fsmis_components.reporting.drawing import draw_overlay, embedded
from fsmis_components.reporting.pages import render
from fsmis_components.support.support_set import PALETTE, Structure

# what Markdown knows beyond text and tables: names of scans and structures are only text
_NO_MARKUP = ("html", "link", "image_link", "reference", "image_reference", "short_reference")


def note_run(root: Path, command: str, failures: Sequence[str]) -> None:
    """Keep in `run.json` the commands that make the results, and what failed in the last one."""
    path = root / "run.json"
    there = read_json(path) if path.is_file() else {}
    commands = list(dict.fromkeys([*there.get("commands", []), command]))
    content = {**there, "commands": commands, "failures": list(failures)}
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
            # from the folder of the report
            paths = {
                k: os.path.relpath(root / mask, output_dir) for k, mask in record.masks.items()
            }
            records.append(replace(record, masks=paths))
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
        path: the file; paths of masks in the records are relative to its folder.
        records: finished cases.
        run: facts of the run as JSON values; "failures" lists what failed.
        table: the tables as Markdown.
    """
    rows = rows_frame([row for record in records for row in record.rows])
    rows["record"] = pd.Series([at for at, each in enumerate(records) for _ in each.rows])
    values = rows.drop_duplicates("structure").sort_values("value")[["structure", "value"]]
    named = zip(values.itertuples(index=False), cycle(PALETTE), strict=False)
    structures = [Structure(str(name), int(value), colour) for (name, value), colour in named]
    # the floor is only shown where there is nothing else
    (method, _, labelled, shots), shown = max(
        rows[rows.protocol == WHOLE_VOLUME].groupby([*LINE]),
        key=lambda line: (line[0][0] != FLOOR, unit_means(line[1]).dice.mean()),
    )
    # a name may hold a dollar sign, which is no formula
    with matplotlib.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}):
        cases = _cases(records, shown, structures, path.parent)
    page = render(
        "benchmark.html",
        title="Few-shot segmentation benchmark",
        methods=len({*rows.method} - {FLOOR}),
        floor=FLOOR in {*rows.method},
        structures={structure.name: structure.colour for structure in structures},
        scans=int(rows.case.nunique()),
        best=f"{method}, {labelled_title(labelled, shots)}",
        cases=cases,
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
    rules: set[str] = set()
    facts: dict[str, dict[str, Any]] = {}
    data = {record.image.rpartition("/")[2]: record.fingerprint for record in records}
    for root in roots:
        noted = read_json(root / "run.json") if (root / "run.json").is_file() else {}
        run["commands"] += [c for c in noted.get("commands", []) if c not in run["commands"]]
        run["failures"] += noted.get("failures", [])
        for path in sorted(root.glob("cases/*/*/unit.json")):
            unit = read_json(path)
            rules.add(unit["rule"])
            for key, value in {"code": unit["code"], **unit["surroundings"]}.items():
                facts.setdefault(key, {})[json.dumps(value, sort_keys=True)] = value
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
    codes = ", ".join(sorted(facts.pop("code", {}).values()))
    run |= {"data_hash": joined_hash(data), "code": codes}
    for key, values in facts.items():
        several = list(values.values())
        run[key] = several[0] if len(several) == 1 else "; ".join(map(str, several))
    return run


def _cases(
    records: Sequence[CaseRecord],
    rows: pd.DataFrame,
    structures: Sequence[Structure],
    folder: Path,
) -> list[dict[str, Any]]:
    """Best, median and worst case of the rows of a method, with the first choice of support."""
    means = unit_means(rows).dice.sort_values(ascending=False, kind="stable")
    ranks = {0: "Best", len(means) // 2: "Median", len(means) - 1: "Worst"}
    found = []
    for place, rank in sorted({0: "Only"}.items() if len(means) == 1 else ranks.items()):
        fold, case = means.index[place]
        shown = rows[(rows.fold == fold) & (rows.case == case)]
        shown = shown[shown.choice == shown.choice.min()]
        dice = {
            row.structure: f"{row.dice:.1f}" if row.status == SCORED else row.status
            for row in shown.itertuples()
        }
        entry = {"rank": rank, "fold": fold, "case": case, "mean": means.iloc[place], "dice": dice}
        try:
            drawn = [structure for structure in structures if structure.name in dice]
            key = f"{WHOLE_VOLUME}/{shown.labelled.iloc[0]}"
            used = [records[at] for at in shown.record.unique()]
            entry["picture"] = _picture(used, key, drawn, folder)
        except DataError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


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


def _html(text: str) -> Markup:
    """Markdown as HTML; HTML and links in it are text."""
    converter = markdown.Markdown(extensions=["tables", "sane_lists"], tab_length=2)
    converter.preprocessors.deregister("html_block")
    for name in _NO_MARKUP:
        converter.inlinePatterns.deregister(name)
    return Markup(converter.convert(text))
