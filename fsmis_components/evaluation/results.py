"""From finished cases to what is read: `cases.csv`, `summary.json`, `table.md`, `report.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.provenance import joined_hash
from fsmis_components.evaluation.records import CaseRecord, Row
from fsmis_components.evaluation.report import write_report
from fsmis_components.evaluation.results_folder import read_json, read_records, write_rows
from fsmis_components.evaluation.summary import summarise
from fsmis_components.evaluation.tables import markdown_table


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
    commands = [*there.get("commands", [])]
    if command not in commands:
        commands.append(command)
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
    records = [_seen_from(record, root, output_dir) for root in roots for record in _read(root)]
    rows = sorted((row for record in records for row in record.rows), key=_order)
    run = _join_runs(roots, records)
    summary = summarise(rows)
    table = markdown_table(summary, run)
    atomic_write_text(output_dir / "table.md", table)
    text = json.dumps({"run": run, **summary}, indent=1, allow_nan=False) + "\n"
    atomic_write_text(output_dir / "summary.json", text)
    write_rows(rows, output_dir / "cases.csv")
    report = write_report(output_dir / "report.html", records, summary, run, table)
    return [
        output_dir / "table.md",
        report,
        output_dir / "cases.csv",
        output_dir / "summary.json",
    ]


def _read(root: Path) -> list[CaseRecord]:
    return [record for record in read_records(root) if not record.message]


def _seen_from(record: CaseRecord, root: Path, output_dir: Path) -> CaseRecord:
    """The record with its masks as paths from another folder."""
    masks = {key: os.path.relpath(root / path, output_dir) for key, path in record.masks.items()}
    return replace(record, masks=masks)


def _order(row: Row) -> tuple[Any, ...]:
    return (
        row.method,
        row.setting,
        row.shots,
        row.choice,
        row.fold,
        row.labelled != "sections",
        row.protocol,
        row.case,
        row.value,
    )


def _join_runs(roots: Sequence[Path], records: Sequence[CaseRecord]) -> dict[str, Any]:
    """What the tables carry: commands, failures, hashes of weights, data and code."""
    run: dict[str, Any] = {"commands": [], "failures": [], "weights": {}, "dropped_slices": {}}
    codes, surroundings, rules = set(), {}, set()
    data = {record.image.rpartition("/")[2]: record.fingerprint for record in records}
    for root in roots:
        path = root / "run.json"
        noted = read_json(path) if path.is_file() else {}
        run["commands"] += [c for c in noted.get("commands", []) if c not in run["commands"]]
        run["failures"] += noted.get("failures", [])
        for path in sorted(root.glob("cases/*/*/unit.json")):
            unit = read_json(path)
            codes.add(unit["code"])
            rules.add(unit["rule"])
            surroundings[json.dumps(unit["surroundings"], sort_keys=True)] = unit["surroundings"]
            name = f"{path.parent.parent.name} {path.parent.name}"
            if "weights" in unit["subject"]:
                run["weights"][name] = unit["subject"]["weights"]
            if "dropped_slices" in unit["subject"]:
                run["dropped_slices"][name] = unit["subject"]["dropped_slices"]
            data |= {f"support {name}": value for name, value in unit["support"].items()}
    if len(rules) > 1:
        raise DataError(
            f"results: {' and '.join(sorted(rules))} choose support and queries differently, so "
            "they do not share a table; join folders of one rule."
        )
    run["data_hash"] = joined_hash(data)
    run["code"] = ", ".join(sorted(codes))
    for facts in surroundings.values():
        for key, value in facts.items():
            run.setdefault(key, value)
            if run[key] != value:
                run[key] = f"{run[key]}; {value}"
    return run
