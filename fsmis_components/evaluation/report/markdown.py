"""The Markdown of `table.md` as HTML: headings, paragraphs, lists, pipe tables, code."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

_DELIMITER = re.compile(r"^\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")  # "\|" is a bar inside a cell
_HEADING = re.compile(r"^(#{1,6})\s+(.*)$")
_BULLET = re.compile(r"^\s*[-*]\s+(.*)$")
_NUMBER = re.compile(r"^\s*\d+[.)]\s+(.*)$")
_FENCE = "```"


def to_html(text: str, *, lower_headings: int = 0) -> str:
    """Convert Markdown; HTML in it is shown as text.

    Args:
        text: headings with "#", paragraphs, lists with "-", "*" or "1.", those within lists
            indented, tables with "|" and a line of dashes, code between "```"; within a line
            `code` and **bold**.
        lower_headings: added to the level of every heading, at most 6 in all.
    """
    lines = text.splitlines()
    blocks: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        heading = _HEADING.match(line)
        if not line.strip():
            at += 1
        elif heading:
            level = min(6, len(heading[1]) + lower_headings)
            blocks.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
            at += 1
        elif line.startswith(_FENCE):
            stop = _stop(lines, at + 1, lambda other: not other.startswith(_FENCE))
            blocks.append(f"<pre><code>{escape(chr(10).join(lines[at + 1 : stop]))}</code></pre>")
            at = stop + 1
        elif _begins_table(lines, at):
            stop = _stop(lines, at, lambda other: "|" in other)
            blocks.append(_table(lines[at:stop]))
            at = stop
        elif _mark(line):
            stop = _stop(lines, at, lambda other: bool(other.strip()))
            blocks.append(_list(lines[at:stop]))
            at = stop
        else:
            stop = at + 1
            while stop < len(lines) and not _begins_block(lines, stop):
                stop += 1
            blocks.append(f"<p>{_inline(' '.join(part.strip() for part in lines[at:stop]))}</p>")
            at = stop
    return "\n".join(blocks)


def _begins_block(lines: list[str], at: int) -> bool:
    line = lines[at]
    return (
        not line.strip()
        or line.startswith(_FENCE)
        or _HEADING.match(line) is not None
        or _mark(line) is not None
        or _begins_table(lines, at)
    )


def _begins_table(lines: list[str], at: int) -> bool:
    return "|" in lines[at] and at + 1 < len(lines) and _DELIMITER.match(lines[at + 1]) is not None


def _stop(lines: list[str], start: int, goes_on: Callable[[str], bool]) -> int:
    """Number of the first line from `start` on that does not belong to the block."""
    at = start
    while at < len(lines) and goes_on(lines[at]):
        at += 1
    return at


def _table(lines: list[str]) -> str:
    head, delimiter, *body = ([cell.strip() for cell in _cells(line)] for line in lines)
    columns = [_alignment(cell) for cell in delimiter]
    rows = "\n".join(_row(cells, columns, "td") for cells in body)
    return (
        f'<div class="wide"><table>\n<thead>{_row(head, columns, "th")}</thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.replace("\\|", "|") for cell in _CELL_BORDER.split(inner)]


def _alignment(cell: str) -> str:
    if cell.endswith(":"):
        return ' class="centre"' if cell.startswith(":") else ' class="right"'
    return ""


def _row(cells: list[str], columns: list[str], tag: str) -> str:
    filled = (cells + [""] * len(columns))[: len(columns)]
    inner = "".join(
        f"<{tag}{alignment}>{_inline(cell)}</{tag}>"
        for cell, alignment in zip(filled, columns, strict=True)
    )
    return f"<tr>{inner}</tr>"


def _list(lines: list[str]) -> str:
    """Items; deeper marks make a list within an item, other lines go on with the item before."""
    tag = "ul" if _BULLET.match(lines[0]) else "ol"
    depth = _depth(lines[0])
    items: list[str] = []
    at = 0
    while at < len(lines):
        item = _mark(lines[at])
        if item is None:
            items[-1] += f" {_inline(lines[at].strip())}"
            at += 1
        elif _depth(lines[at]) > depth:
            stop = _stop(lines, at, lambda line: _mark(line) is None or _depth(line) > depth)
            items[-1] += _list(lines[at:stop])
            at = stop
        else:
            items.append(_inline(item[1]))
            at += 1
    inner = "\n".join(f"<li>{item}</li>" for item in items)
    return f"<{tag}>\n{inner}\n</{tag}>"


def _mark(line: str) -> re.Match[str] | None:
    return _BULLET.match(line) or _NUMBER.match(line)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _inline(text: str) -> str:
    pieces = re.split(r"`([^`]+)`", text)  # what stands between backticks has an odd place
    return "".join(
        f"<code>{escape(piece)}</code>"
        if place % 2
        else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(piece))
        for place, piece in enumerate(pieces)
    )
