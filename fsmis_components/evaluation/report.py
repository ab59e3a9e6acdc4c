"""The report of a benchmark: one HTML file to look at, with nothing outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markdown
import pandas as pd
from markupsafe import Markup

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.case_pictures import case_picture, mask_paths, picked_units
from fsmis_components.evaluation.charts import PROTOCOL_COLOURS, box_chart, mean_profile, z_chart
from fsmis_components.evaluation.records import (
    ABSENT,
    ORACLE,
    SCORED,
    WHOLE_VOLUME,
    CaseRecord,
)
from fsmis_components.evaluation.summary import EP1_RULES, FLOOR, UNTRAINED, rows_frame, unit_means
from fsmis_components.evaluation.tables import (
    LINE,
    environment,
    labelled_title,
    protocol_title,
)
from fsmis_components.support.support_set import PALETTE

# what Markdown knows beyond text and tables: names of scans and structures are only text
_NO_MARKUP = ("html", "link", "image_link", "reference", "image_reference", "short_reference")
Line = tuple[str, str, str, int]  # method, setting, labelled slices, shots


def write_report(
    path: Path,
    records: Sequence[CaseRecord],
    summary: Mapping[str, Any],
    run: Mapping[str, Any],
    table: str,
) -> Path:
    """Write the report, whole or not at all; the same input gives the same bytes.

    Args:
        path: the file; its folder is the results folder, to which paths of masks are relative.
        records: finished cases, and failed ones, which have a message and no rows.
        summary: of their rows, by `summarise`.
        run: facts of the run as JSON values; "failures" lists what failed beside the records.
        table: the tables as Markdown.

    Returns:
        The path.
    """
    messages = [record.message for record in records if record.message]
    failures = list(dict.fromkeys([*messages, *map(str, run.get("failures", []))]))
    finished = [record for record in records if not record.message]
    rows = rows_frame([row for record in finished for row in record.rows])
    page = environment().get_template("report.html").render(
        failures=failures,
        facts={key: value for key, value in run.items() if key != "failures"},
        table=_html(table),
        colours=PROTOCOL_COLOURS,
        **_shown(finished, rows, summary, path.parent),
    )  # fmt: skip
    return atomic_write_text(path, page)


def _shown(
    records: Sequence[CaseRecord], rows: pd.DataFrame, summary: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What the page shows of the results; everything is empty where nothing was scored."""
    groups = [group for group in summary["groups"] if group["mean"]["dice"]["mean"] is not None]
    dice = {
        (tuple(group[key] for key in LINE), group["protocol"]): group["mean"]["dice"]
        for group in groups
    }
    lines: list[Line] = sorted({line for line, _ in dice}, key=lambda line: line[0] == FLOOR)
    lines.sort(key=lambda line: line[0] == FLOOR)
    found = set(rows.protocol)
    told = [rule for rule in EP1_RULES if rule in found] or [
        ORACLE for _ in (0,) if ORACLE in found
    ]
    protocols = [*told, WHOLE_VOLUME]
    values = {
        str(entry.structure): int(entry.value)
        for entry in rows.drop_duplicates("structure").sort_values("value").itertuples()
    }
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(values)}
    absent = rows[(rows.protocol == WHOLE_VOLUME) & (rows.status == ABSENT)]
    best = _best(lines, dice, told)
    return {
        "methods": sorted({line[0] for line in lines} - {FLOOR}),
        "floor": any(line[0] == FLOOR for line in lines),
        "structures": colours,
        "scans": int(rows.case.nunique()),
        "protocols": {
            protocol: protocol_title(protocol).replace("`", "") for protocol in protocols
        },
        "absent": absent.groupby("structure", sort=False).case.nunique().to_dict(),
        "best": best and _name(best, lines),
        "cards": best and _cards(best, lines, dice, told, summary["wv_gaps"]),
        "standings": [
            {
                "name": _name(line, lines),
                "floor": line[0] == FLOOR,
                "dice": {p: dice[line, p] for p in protocols if (line, p) in dice},
            }
            for line in lines
        ],
        "boxes": _boxes(rows, lines, protocols, list(values)),
        "profiles": _profiles(records, lines, protocols),
        "cases": _cases(records, rows, best, colours, values, folder) if best else [],
    }


def _best(
    lines: Sequence[Line], dice: Mapping[Any, Mapping[str, float]], told: Sequence[str]
) -> Line | None:
    """The best method by whole-volume Dice; methods with an EP1 figure first, the floor last."""
    blind = [line for line in lines if (line, WHOLE_VOLUME) in dice]
    if not blind:
        return None

    def place(line: Line) -> tuple[bool, bool, float]:
        has_told = any((line, protocol) in dice for protocol in told)
        return line[0] != FLOOR, has_told, dice[line, WHOLE_VOLUME]["mean"]

    return max(blind, key=place)


def _cards(
    best: Line,
    lines: Sequence[Line],
    dice: Mapping[Any, Mapping[str, float]],
    told: Sequence[str],
    gaps: Sequence[Mapping[str, Any]],
) -> list[tuple[str, float, str]]:
    """Three or four figures to take home: name, percent, what it means."""
    rule = next((protocol for protocol in told if (best, protocol) in dice), None)
    floors = [line for line in lines if line[0] == FLOOR and line != best]
    floors.sort(key=lambda line: (line[2] != best[2], line[3] != best[3]))
    cards = []
    if rule is not None:
        title = protocol_title(rule).replace("`", "")
        cards.append((title, dice[best, rule]["mean"], "told where each organ lies"))
    blind = dice[best, WHOLE_VOLUME]["mean"]
    cards.append(("whole volume", blind, "must find the organs itself"))
    for gap in gaps:
        if tuple(gap[key] for key in LINE) == best and gap["told"] == rule:
            cards.append(("gap", gap["mean_difference"], "price of not being told"))
    for floor in floors[:1]:
        figure = dice.get((floor, rule or WHOLE_VOLUME))
        if figure is not None:
            cards.append(("floor", figure["mean"], "copied masks, image never read"))
    return cards


def _of_line(rows: pd.DataFrame, line: Line, protocol: str) -> pd.DataFrame:
    own = (rows[LINE] == list(line)).all(axis=1)
    return rows[own & (rows.protocol == protocol)]


def _boxes(
    rows: pd.DataFrame, lines: Sequence[Line], protocols: Sequence[str], structures: list[str]
) -> list[dict[str, str]]:
    """A chart per structure, before them one of the mean over structures if there are several."""
    parts = [(name, rows[rows.structure == name]) for name in structures]
    if len(parts) > 1:
        parts.insert(0, ("mean over structures", rows))
    charts = []
    for title, part in parts:
        shown = [
            (_name(line, lines), protocol, unit_means(_of_line(part, line, protocol)).dice.tolist())
            for line in lines
            for protocol in protocols
        ]
        shown = [entry for entry in shown if entry[2]]
        charts += [box_chart(title, shown)] if shown else []
    return charts


def _profiles(
    records: Sequence[CaseRecord], lines: Sequence[Line], protocols: Sequence[str]
) -> list[dict[str, str]]:
    """A chart along z per method, mean over structures."""
    counts = [entry for record in records for entry in record.counts]
    rows = pd.DataFrame([vars(row) for record in records for row in record.rows])
    rows["row"] = range(len(rows))
    charts = []
    for line in lines:
        found = {p: mean_profile(_of_line(rows, line, p), counts) for p in protocols}
        profiles = {protocol: own for protocol, own in found.items() if own is not None}
        charts += [z_chart(_name(line, lines), profiles)] if profiles else []
    return charts


def _cases(
    records: Sequence[CaseRecord],
    rows: pd.DataFrame,
    best: Line,
    colours: Mapping[str, str],
    values: Mapping[str, int],
    folder: Path,
) -> list[dict[str, Any]]:
    """Best, median and worst case of a method, with the first choice of support."""
    own = _of_line(rows, best, WHOLE_VOLUME)
    means = unit_means(own).dice.to_dict()
    found = []
    for rank, unit in picked_units(means):
        shown = own[(own.fold == unit[0]) & (own.case == unit[1])]
        shown = shown[shown.choice == shown.choice.min()]
        keys = set(shown[["method", "fold", "choice", "case"]].itertuples(index=False, name=None))
        used = [
            record
            for record in records
            if any((r.method, r.fold, r.choice, r.case) in keys and _line(r) == best
                   for r in record.rows)
        ]  # fmt: skip
        names = shown.structure.tolist()
        entry: dict[str, Any] = {
            "rank": rank,
            "fold": unit[0],
            "case": unit[1],
            "mean": means[unit],
            "structures": {
                row.structure: f"{row.dice:.1f}" if row.status == SCORED else row.status
                for row in shown.itertuples()
            },
        }
        try:
            masks = mask_paths(used, names, f"{WHOLE_VOLUME}/{best[2]}", folder)
            own_values = {name: values[name] for name in names}
            own_colours = [colours[name] for name in names]
            entry["picture"] = case_picture(used[0], masks, own_values, own_colours)
        except DataError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def _line(row: Any) -> Line:
    return row.method, row.setting, row.labelled, row.shots


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
