"""Text that strangers write or that holds their words: CSV and JSON that do no harm.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and a formula may
start programs or send data away. Names of files and structures, and messages that quote them, come
from strangers. Such text gets an apostrophe in front, which spreadsheets show as text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

# at the beginning, and behind what some spreadsheets take for the end of a cell
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[=+\-@\t\r＝＋－＠])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def csv_table(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, text that a spreadsheet would compute with an apostrophe in front.

    Args:
        rows: cells of each line, the head first; numbers, also as text, stay as they are.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([_shown(cell) for cell in row] for row in rows)
    return lines.getvalue()


def _shown(cell: object) -> object:
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    # the writer does not quote a carriage return, which would end the line
    return _FORMULA.sub(r"\1'", cell).replace("\r", " ")


# deeper than any of our files or of MONAI's; nesting without end exhausts Python's stack
DEEPEST = 100


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or nested deeper than `DEEPEST`.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    level = [content]
    for _ in range(DEEPEST + 1):
        nests = [node for node in level if isinstance(node, dict | list)]
        if not nests:
            return content
        level = [x for node in nests for x in (node.values() if isinstance(node, dict) else node)]
    raise ValueError(f"nested deeper than {DEEPEST} levels")
