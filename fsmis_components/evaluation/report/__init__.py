"""The report of a benchmark: one HTML file to look at, with nothing outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.evaluation.records import CaseRecord
from fsmis_components.evaluation.report.page import render

__all__ = ["write_report"]


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
    return atomic_write_text(path, render(records, summary, run, table, path.parent))
